"""What the parts owe each other."""
