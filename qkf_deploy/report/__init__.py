"""What people and spreadsheets read: tables, and one self-contained HTML page. Sees counts, not simulators."""
