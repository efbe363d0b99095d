"""`make init`: five questions, and the inventory, variables and a workflow file for somebody's own app and host."""
