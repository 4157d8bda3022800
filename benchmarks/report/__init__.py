"""What is made of records: tables, plots, the README's figures."""
