"""What is true of the events of every stream, and how to get them: the public kit, under the name tests know it by."""

from penstock.testing.replay import Driven, check_events, drive

__all__ = ["Driven", "check_events", "drive"]
