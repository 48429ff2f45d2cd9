// Gossipsub in a node of node.mjs: its settings, what it received, and what tests look at inside it.
import { createHash } from 'node:crypto'

import { gossipsub } from '@libp2p/gossipsub'
import { peerIdFromString } from '@libp2p/peer-id'

const KEPT = 100_000 // messages noted per node; later ones are counted only

const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'))
const hex = (data) => Buffer.from(data).toString('hex')

// The service. versions: protocol ids, preferred first; settings: of @libp2p/gossipsub.
export const pubsub = ({ versions, ...settings }) => (components) => {
  const service = gossipsub({ allowPublishToZeroTopicPeers: true, fallbackToFloodsub: false, ...settings })(components)
  if (versions !== undefined) service.protocols = versions
  service.noted = []
  service.count = 0
  service.addEventListener('gossipsub:message', ({ detail: { propagationSource, msg } }) => {
    service.count += 1
    if (service.noted.length >= KEPT) return
    service.noted.push({
      topic: msg.topic,
      from: msg.from.toString(),
      seqno: msg.sequenceNumber.toString(),
      size: msg.data.length,
      sha256: createHash('sha256').update(msg.data).digest('hex'),
      sender: propagationSource.toString(),
      at: performance.timeOrigin + performance.now() // Unix milliseconds
    })
  })
  return service
}

export const pubsubCommands = (nodes) => {
  const of = (name) => nodes.get(name).services.pubsub
  return {
    async subscribe ({ name, topic }) {
      of(name).subscribe(topic)
    },

    async unsubscribe ({ name, topic }) {
      of(name).unsubscribe(topic)
    },

    // How many peers it was sent to.
    async publish ({ name, topic, data }) {
      return (await of(name).publish(topic, bytes(data))).recipients.length
    },

    // What was received, from the `after`-th on; data as their length and hash.
    async messages ({ name, after = 0, most = 1000 }) {
      return of(name).noted.slice(after, after + most)
    },

    async received ({ name }) {
      return of(name).count
    },

    async mesh ({ name, topic }) {
      return of(name).getMeshPeers(topic)
    },

    async subscribers ({ name, topic }) {
      return of(name).getSubscribers(topic).map(String)
    },

    async score ({ name, peer }) {
      return of(name).score.score(peer)
    },

    // How many message ids a peer said that it does not want.
    async unwanted ({ name, peer }) {
      return of(name).idontwants.get(peer)?.size ?? 0
    },

    // An RPC as it is, without its length prefix.
    async rpc ({ name, peer, rpc }) {
      of(name).streamsOutbound.get(peer).push(bytes(rpc))
    },

    async connected ({ name }) {
      return nodes.get(name).getPeers().map(String)
    },

    // The signed peer record that identify or peer exchange brought, once it was verified.
    async peerRecord ({ name, peer }) {
      const known = await nodes.get(name).peerStore.get(peerIdFromString(peer))
      return {
        envelope: known.peerRecordEnvelope === undefined ? null : hex(known.peerRecordEnvelope),
        certified: known.addresses.filter((address) => address.isCertified).map(({ multiaddr }) => multiaddr.toString())
      }
    }
  }
}
