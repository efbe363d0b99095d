"""Telling people how a deploy or a rollback ended, and how the app's hosts stand: plain Python behind the plugins."""
