"""Gossip: signed messages to all subscribers of a topic, and the load signals and balancing built on it.

Where to look; each file begins with its theory.

    router                                          the gossip engine: what happens when
    intake, validation, topics                      what happens to a message from its arrival to its delivery
    seen, caches, sequences                         what is remembered of messages
    peers, mesh, mesh_choice, direct, exchange      to whom: meshes, fanouts, peers agreed on, peers named by others
    lazy, idontwant, outbox                         what is offered, asked for, not wanted; what waits to leave
    score, topic_score, scores, score_config        what peers earn and pay for
    events, messages, wire, id_forms, codec         what the application, the engine and the network say
    load and load_*, crowd                          the load engine: signals, shards, tables, and what keeps them fair
    doubts, suspicion                               who fell silent
    coordinates, places                             how far apart peers are
    balancer; choice, adaptive, rules, placement, probes    whom to ask: choose(), and its parts
    config                                          settings and counters
"""
