"""Kafka and Faust, and nothing about customers.

engine      Faust's app with our parts          inputs      its agents, one an input
transport   Faust's consumer, handing on chunks fetching    aiokafka's fetching, a credit for each partition
supervisor  which shards are ours               shard       one shard: open, work, drop everything, again
recovery    rows and offsets, read back         producing   one shard's transactions
watch       the time and the ends of the inputs clients     aiokafka's faults, mended
wiring      topics, ids, limits                 protocol    what a processor must offer
"""
