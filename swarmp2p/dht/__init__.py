"""The Kademlia DHT: one pure engine (kademlia.py) and the pieces that it is made of.

keys        256-bit ids, XOR distance, keys of services
routing     the table of known peers
lookup      one iterative search, as a state machine
messages    what peers say to each other; wire.py and record_wire.py are its bytes
records     signed service records; provider_store and value_store keep what others asked us to keep
server      answers requests
queries     what becomes of the application's commands; service_query has one more
traffic     runs queries: sends requests (requests.py), waits for as long as round_trips.py says
refresh     keeps the table full
publisher   what this peer provides and announces; publishing stores it at others, now and again (renewals)
handover    records for peers that come to be among the nearest; provider_record is what they need for it
own_values  the values that this peer puts, and stores again
optimistic  records that are sent before all of their holders have answered
sweep       many keys with few lookups, from what those prove (coverage); sweeper runs them
kademlia    the engine: events in, outputs out
config      its settings
"""
