"""What a person reads: tables for the terminal, figures, one HTML file, MLflow."""
