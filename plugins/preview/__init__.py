"""What a deploy would do, told from the artifact's files, from git, and from what hosts answer; nothing is changed."""
