// js-libp2p's gossipsub for benchmarks/gossip.py: all nodes in this process. One line of JSON as argument:
//
//   {"nodes": 20, "edges": [[0, 1], ...], "rate": 10, "seconds": 10, "settle": 5, "seed": 1, "modules": URL}
//
// First 16 publishers that wait until their message is everywhere, then an open loop; prints figures as JSON.
import { strict as assert } from 'node:assert'

const options = JSON.parse(process.argv[2])
const load = (name) => import(import.meta.resolve(name, options.modules))
const [{ noise }, { yamux }, { gossipsub }, { identify }, { tcp }, { createLibp2p }] = await Promise.all(
  ['@chainsafe/libp2p-noise', '@chainsafe/libp2p-yamux', '@libp2p/gossipsub', '@libp2p/identify', '@libp2p/tcp', 'libp2p']
    .map(load)
)

const TOPIC = 'benchmark'
const MESSAGE_BYTES = 150
const QUIET_MS = 10_000
const PUBLISHERS = 16
const GIVE_UP_MS = 5000
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

let state = options.seed * 2654435761 >>> 0
const random = (below) => { // xorshift: the same publishers with the same seed
  state ^= state << 13; state >>>= 0; state ^= state >>> 17; state ^= state << 5; state >>>= 0
  return state % below
}

const messages = [] // {at, missing, everywhere}
let deliveries = 0
let latest = 0
let latencies = []

let first = 0 // messages before this one are of an earlier loop

const arrived = (node, data) => {
  const number = Buffer.from(data.buffer, data.byteOffset, 4).readUInt32BE()
  const message = messages[number]
  if (!message.missing.delete(node) || number < first) return
  latest = performance.now()
  deliveries += 1
  latencies.push(latest - message.at)
  if (message.missing.size === 0) message.everywhere?.()
}

const nodes = []
for (let number = 0; number < options.nodes; number++) {
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionManager: { maxConnections: 1000, inboundConnectionThreshold: 1000 },
    services: { identify: identify(), pubsub: gossipsub({ emitSelf: false, allowPublishToZeroTopicPeers: true }) }
  })
  node.services.pubsub.addEventListener('message', ({ detail }) => arrived(number, detail.data))
  node.services.pubsub.subscribe(TOPIC)
  nodes.push(node)
}
for (const [one, other] of options.edges) await nodes[one].dial(nodes[other].getMultiaddrs())

const publish = (at) => {
  const publisher = random(nodes.length)
  const data = new Uint8Array(MESSAGE_BYTES)
  Buffer.from(data.buffer).writeUInt32BE(messages.length)
  const message = { at, missing: new Set(nodes.keys()) }
  message.missing.delete(publisher)
  messages.push(message)
  nodes[publisher].services.pubsub.publish(TOPIC, data).catch((error) => console.error(String(error)))
  return message
}

await sleep(options.settle * 1000)

// Closed loop.
const closedUntil = performance.now() + options.seconds * 1000
const publisher = async () => {
  while (performance.now() < closedUntil) {
    const everywhere = new Promise((resolve) => {
      publish(performance.now()).everywhere = resolve
      setTimeout(resolve, GIVE_UP_MS).unref()
    })
    await everywhere
  }
}
const began = performance.now()
await Promise.race([
  Promise.all(Array.from({ length: PUBLISHERS }, publisher)),
  sleep(options.seconds * 1000)
])
const perSecond = deliveries / ((performance.now() - began) / 1000)

// Open loop.
await sleep(options.settle * 1000)
const total = Math.max(1, Math.round(options.rate * options.seconds))
const expected = total * (nodes.length - 1)
first = messages.length
deliveries = 0
latencies = []
const before = process.cpuUsage()
const start = performance.now()
for (let number = 0; number < total; number++) {
  const at = start + number * 1000 / options.rate
  const wait = at - performance.now()
  if (wait > 0) await sleep(wait)
  publish(at)
}
const ended = performance.now()
while (deliveries < expected && performance.now() - Math.max(latest, ended) < QUIET_MS) await sleep(50)
const cpu = process.cpuUsage(before)

assert(deliveries > 0, 'no message reached anybody')
latencies.sort((one, other) => one - other)
const percentile = (share) => latencies[Math.floor(share * (latencies.length - 1))]
console.log(JSON.stringify({
  delivered: deliveries / expected,
  p50_ms: percentile(0.5),
  p99_ms: percentile(0.99),
  cpu_ms_per_delivery: (cpu.user + cpu.system) / 1000 / deliveries,
  deliveries_per_s: perSecond
}))
process.exit(0)
