"""People and their access, on the controller: plain functions that the action plugin `access` and its like call."""
