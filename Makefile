# The verbs of this repository. Everything they need is made on the way: `make demo` is enough on a fresh clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Which lab to work on: `make lab-up LAB=blue`. Labs with different names live side by side.
given_lab := $(or $(LAB),$(SLIPWAY_LAB))
LAB := $(or $(given_lab),lab)
# The tests have a lab of their own, so that they leave yours alone.
TEST_LAB := $(or $(given_lab),molecule)
VM_LAB := $(or $(given_lab),vm)
FLEET_LAB := $(or $(given_lab),eight)
HOST ?= app1
bench_options = $(if $(SWITCHES),--switches $(SWITCHES)) $(if $(RATE),--rate $(RATE))

export SLIPWAY_LAB := $(LAB)
export SLIPWAY_TOPOLOGY
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Compiled Python is kept, outside the tree: without it each play and each of its tasks compiles Ansible anew.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/pycache
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup hooks init check test test-full vm-test vm-test-full prove demo bench bench-switches bench-fleet bench-edge artifact docs lab-up lab-down lab-ssh lock clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo "  Variables: LAB=$(LAB) HOST=$(HOST)"

setup: ## make the tool set (.venv) and find or start a container engine
	@bin/setup --engine

init: ## your own app and VPS: five questions (or ARGS="--domain … --yes")
	@bin/init $(ARGS)

hooks: ## have git run .pre-commit-config.yaml before each commit of this checkout
	@bin/setup
	@pre-commit install

check: ## lint, types, secrets in the clear, unit and contract tests; needs no container
	@bin/setup
	@bin/check

test: ## check, whole plays on this machine, then every Molecule scenario on lab hosts
	@bin/setup --engine
	@SLIPWAY_LAB=$(TEST_LAB) bin/test

test-full: ## test, and the long ones (every kill point, many switches)
	@bin/setup --engine
	@SLIPWAY_LAB=$(TEST_LAB) bin/test --full

vm-test: ## a host as a real machine: auditd, AppArmor, the firewall, the guard, over reboots
	@SLIPWAY_LAB=$(VM_LAB) bin/vm-test

vm-test-full: ## vm-test, every control of the catalogue and Lynis: an hour where KVM does not work
	@SLIPWAY_LAB=$(VM_LAB) bin/vm-test --full

prove: ## show that every role's scenario is red once the role does nothing
	@bin/setup --engine
	@bin/prove

demo: ## the whole way on a local host: serve, release under load, refuse, roll back
	@bin/demo

bench: ## measure lost requests and times; SWITCHES=n RATE=n
	@bin/setup --engine
	@bin/bench $(bench_options)

bench-switches: ## 200 switches of every kind, deploys among them, at 200 requests a second; SWITCHES=n RATE=n
	@bin/setup --engine
	@bin/bench --mixed $(bench_options)

bench-fleet: ## measure how deploy and rollback grow over 1, 4 and 8 hosts, on a lab of its own
	@bin/setup --engine
	@SLIPWAY_LAB=$(FLEET_LAB) bin/bench --fleet

bench-edge: ## measure what the edge costs, against a bare nginx and Gunicorn's own socket
	@bin/setup --engine
	@bin/bench --edge

artifact: ## pack examples/bookshop from git into dist/
	@bin/setup
	@bin/pack

lab-up: ## start the lab's hosts (LAB=name)
	@bin/setup --engine
	@lab/lab.py up

lab-down: ## remove the lab and all that is its own (LAB=name)
	@bin/setup
	@lab/lab.py down

lab-ssh: ## a root shell on a lab host (HOST=app1)
	@bin/setup
	@lab/lab.py ssh $(HOST)

docs: ## write the pages that are made from data (docs/ops/cis.md)
	@bin/setup
	@bin/docs

lock: ## resolve requirements.lock anew from pyproject.toml
	@bin/setup
	@bin/lock

clean: ## remove every lab of this checkout, the tool set and all caches
	@bin/clean
