"""The wire contract: what crosses the border, readable by other teams without our code.

The types are the source (events.py, triggers.py, rejects.py); the JSON Schema files, asyncapi.yaml and the codec
follow from them. Nothing here knows Kafka or a clock, and of the disk only the files that lie beside it.
"""
