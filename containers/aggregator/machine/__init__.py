"""The confidential VM around the aggregator: its first process, disks, network and encrypted state."""
