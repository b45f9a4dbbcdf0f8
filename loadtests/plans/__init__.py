"""`warmtide plan`: a decision looked at: actions, reasons, the GPUs before and after."""
