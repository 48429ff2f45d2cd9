"""The Kademlia DHT: one pure engine (kademlia.py) and the pieces that it is made of.

keys        256-bit ids, XOR distance, keys of services
routing     the table of known peers: buckets, and how many may come from one subnet (bucket, diversity)
liveness    keeps the table true: who is there, who serves, who is gone; asks with probes
refresh     keeps the table full; neighbours tells the network of the nearest
lookup      one iterative search, as a state machine; disjoint over several paths; lookups makes them
messages    what peers say to each other; wire.py and record_wire.py are its bytes
contacts    who is connected (what is believed of the addresses that peers name: ../hearsay.py)
records     signed service records, provider_record those of plain keys; provider_store and value_store keep what
            others asked us to keep (nearest: whose turn it is when they are full), as validators allow
server      answers requests; handed decides about records that others than their providers bring
queries     what becomes of the application's commands
traffic     runs queries on lookups that they may share (errands); requests waits as long as round_trips says
publisher   what this peer provides and announces; publishing stores it at others, now and again (renewals)
own_values  the values that this peer puts, and stores again
handover    records for peers that come to be among the nearest
optimistic  records that are sent before all of their holders have answered
sweep       many keys with few lookups, from what those prove (coverage); sweeper runs them
shards      how a key of very many providers is split; announcing stores there, splits knows which keys are
service_*   finding a service: search which key, walks through its shards, query one, results in all
crowding    the way round Sybils at a key; network_size is how they are noticed
state       what is to be kept over a restart; keeper gathers it
kademlia    the engine: events in, outputs out; timers are what it waits for
config      its settings; events its commands and outputs
"""
