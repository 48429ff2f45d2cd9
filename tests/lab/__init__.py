"""A laboratory of networks: machines, links, NAT, firewalls, captures and delays, for tests and benchmarks.

    with Lab() as lab:
        internet = lab.segment("internet")
        internet.join(lab.node("relay"), "5.0.0.9/24")
        home = nat(lab, "home", NatKind.CONE, internet, "5.0.0.1/24", "10.1.0.1/24")
        laptop = lab.node("laptop")
        home.join(laptop, "10.1.0.2/24")
        with capture(laptop) as traffic:
            laptop.run("python3", "-c", "...")

A machine is a network namespace, held by a process that ends when this one does, however it ends: nothing has a name
outside, so runs do not meet, and nothing is left behind. What `Node.start` started is killed with the lab, and by the
kernel when the thread that started it dies.
"""
