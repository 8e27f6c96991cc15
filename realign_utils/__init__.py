"""CKA, model selection and the reproducible report of the Re-Align Blue Team entry."""
