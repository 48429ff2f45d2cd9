// js-libp2p nodes for tests: one JSON object a line in, one a line out, until the input ends.
//
//   in   {"id": 1, "do": "start", "name": "a", ...}         out  {"id": 1, "result": {...}}
//   in   {"id": 2, "do": "provide", "name": "a", "key": hex}     {"id": 2, "error": "why"}
//
// Commands run side by side. Keys, values and peers' keys are hex; addresses are texts. js_peers.py speaks to this.
import { createInterface } from 'node:readline'

import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { dcutr } from '@libp2p/dcutr'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import { decode as decodeMultihash } from 'multiformats/hashes/digest'

import { pubsub, pubsubCommands } from './pubsub.mjs'
import { readRecord, serviceKey } from './service.mjs'

const RAW = 0x55 // the CID codec of plain bytes; kad-dht uses the multihash only
const nodes = new Map()

const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'))
const hex = (data) => Buffer.from(data).toString('hex')
const cid = (key) => CID.createV1(RAW, decodeMultihash(bytes(key)))
const texts = (peer) => ({ id: peer.id.toString(), addresses: peer.multiaddrs.map(String) })

// The rule of namespace "swarm" in these tests: a value is "<number>:<text>", and the highest number is best.
const text = (value) => Buffer.from(value).toString('utf8')
const number = (value) => Number(text(value).split(':')[0])
const validate = (key, value) => {
  if (!/^[0-9]{1,15}:/.test(text(value))) throw new Error('not "<number>:<text>"')
}
const select = (key, values) => {
  const numbers = values.map(number)
  return numbers.indexOf(Math.max(...numbers))
}

// Which events a query gave, for those that ask what happened.
const all = async (events) => {
  const list = []
  for await (const event of events) list.push(event)
  return list
}
const answered = (events, type) =>
  events.filter((event) => event.name === 'PEER_RESPONSE' && event.messageName === type)

// The DHT, when a protocol is named.
const dht = (protocol, clientMode) => kadDHT({
  protocol,
  clientMode,
  peerInfoMapper: passthroughMapper, // the default drops loopback addresses
  validators: { swarm: validate },
  selectors: { swarm: select },
  // It would wait a second for a first look at itself, which a network of two never answers.
  allowQueryWithZeroPeers: true,
  initialQuerySelfInterval: 0
})

const commands = {
  // seed: of the node's Ed25519 key; a new one by default. port: 0 for any. gossip: settings of pubsub.mjs; null for no
  // pubsub. relay: 'serve' to relay for others, 'use' to listen at whatever relay is dialled.
  async start ({ name, protocol = null, client = false, seed = null, port = 0, gossip = null, relay = null }) {
    const node = await createLibp2p({
      ...(seed === null ? {} : { privateKey: await generateKeyPairFromSeed('Ed25519', bytes(seed)) }),
      addresses: { listen: relay === 'use' ? ['/p2p-circuit'] : [`/ip4/127.0.0.1/tcp/${port}`] },
      transports: [tcp(), ...(relay === null ? [] : [circuitRelayTransport()])],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      services: {
        identify: identify(),
        ping: ping(),
        ...(relay === 'serve' ? { relay: circuitRelayServer() } : {}),
        ...(relay === 'use' ? { dcutr: dcutr() } : {}),
        ...(protocol === null ? {} : { dht: dht(protocol, client) }),
        ...(gossip === null ? {} : { pubsub: pubsub(gossip) })
      }
    })
    nodes.set(name, node)
    return { id: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) }
  },

  // Where it can be dialled now: through relays only when it listens there.
  async addresses ({ name }) {
    return nodes.get(name).getMultiaddrs().map(String)
  },

  // The round trip to a peer, over whatever connection there is, in ms; and what that runs through.
  async ping ({ name, address }) {
    const node = nodes.get(name)
    const ms = await node.services.ping.ping(multiaddr(address), { runOnLimitedConnection: true })
    const id = multiaddr(address).getComponents().filter(({ name }) => name === 'p2p').at(-1).value
    const through = node.getConnections(peerIdFromString(id)).map(({ remoteAddr, limits }) => ({
      address: remoteAddr.toString(), limited: limits != null
    }))
    return { ms, through }
  },

  async dial ({ name, address }) {
    await nodes.get(name).dial(multiaddr(address))
  },

  // How many peers the record was sent to.
  async provide ({ name, key }) {
    return answered(await all(nodes.get(name).services.dht.provide(cid(key))), 'ADD_PROVIDER').length
  },

  async providers ({ name, key }) {
    const events = await all(nodes.get(name).services.dht.findProviders(cid(key)))
    return events.filter((event) => event.name === 'PROVIDER').flatMap((event) => event.providers.map(texts))
  },

  // The CID route that an application takes.
  async contentRouting ({ name, key }) {
    const found = []
    for await (const peer of nodes.get(name).contentRouting.findProviders(cid(key))) found.push(texts(peer))
    return found
  },

  async findPeer ({ name, peer }) {
    return texts(await nodes.get(name).peerRouting.findPeer(peerIdFromString(peer)))
  },

  async closest ({ name, key }) {
    const events = await all(nodes.get(name).services.dht.getClosestPeers(bytes(key)))
    return events.filter((event) => event.name === 'FINAL_PEER').map((event) => texts(event.peer))
  },

  // How many peers confirmed the value, and why others did not.
  async put ({ name, key, value }) {
    const events = await all(nodes.get(name).services.dht.put(bytes(key), bytes(value)))
    const errors = events.filter((event) => event.name === 'QUERY_ERROR')
    return { stored: answered(events, 'PUT_VALUE').length, errors: errors.map((event) => String(event.error)) }
  },

  async get ({ name, key }) {
    const events = await all(nodes.get(name).services.dht.get(bytes(key)))
    const best = events.filter((event) => event.name === 'VALUE').at(-1)
    return best === undefined ? null : hex(best.value)
  },

  async table ({ name }) {
    const { routingTable } = nodes.get(name).services.dht
    return [...routingTable.kb.toIterable()].map((peer) => peer.peerId.toString())
  },

  // Whom a node would name to others as a provider of a key.
  async holds ({ name, key }) {
    return (await nodes.get(name).services.dht.providers.getProviders(cid(key))).map(String)
  },

  async serviceKey ({ service }) {
    return hex(serviceKey(service))
  },

  async record ({ name, provider, service }) {
    return readRecord(nodes.get(name), peerIdFromString(provider), service)
  },

  async stop ({ name }) {
    await nodes.get(name).stop()
    nodes.delete(name)
  },

  ...pubsubCommands(nodes)
}

const write = (reply) => process.stdout.write(JSON.stringify(reply) + '\n')

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const { id, do: command, ...options } = JSON.parse(line)
    commands[command](options).then(
      (result) => write({ id, result: result ?? null }),
      (error) => write({ id, error: String(error?.stack ?? error) })
    )
  })
  .on('close', () => process.exit(0))
