"""Each figure that README.md quotes, by one command. Ratios, measured side by side in one run."""
