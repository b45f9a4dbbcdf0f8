"""Further dialects for engines that only know chat: requests to chat bodies, answers back. Pure."""
