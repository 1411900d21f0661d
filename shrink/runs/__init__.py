"""What an export keeps beside its report: what was answered for every image, and small pictures of changed answers."""
