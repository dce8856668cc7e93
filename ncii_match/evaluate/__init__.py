"""What hashes survive and what they do not: altered copies of pictures, and pages that show the result."""
