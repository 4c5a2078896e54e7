# images/
