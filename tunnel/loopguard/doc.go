// Package loopguard finds and breaks loops between sites that tunnels of Ethernet frames bridge: two gateways of one site in
// one tunnel, two tunnels between the same sites, a ring of sites. Frames have no time to live, so the first broadcast would
// go round a loop for ever, multiplied at each turn.
//
// Each end of a tunnel (a node) has a random id and writes a probe into its own network, once a second while a peer is
// reached. Nodes pass the probes of others on as they pass a broadcast. A node whose own probe comes back from a peer has
// a way from its network to its peers other than itself, and blocks: no frame crosses between its interface and its peers
// until its probes have stayed away for [Hold]. Probes pass a blocked node, in both directions, so that a loop goes on being seen
// while it is broken.
//
//	state    leaves by
//	open     own probe back from a peer -> blocked
//	blocked  Hold without one while a peer is reached, or SetEnabled(false) -> open
//
// # Why nobody is cut off
//
// Take networks and tunnels as the vertices of a graph and nodes as its edges: each joins its network to its tunnel. A node lets
// a probe cross between network and tunnel only where its own id is lower than the origin's. So a node's probe comes back if and
// only if the node's two ends are joined by a path of nodes with lower ids; in other words if it is the highest of some
// cycle. Removing the highest edge of a cycle is the red rule of minimum spanning trees (Tarjan, Data Structures and Network
// Algorithms, 1983, §6.1): no application of it disconnects anything, in whatever order and wherever it is applied at once,
// because every node decides on the whole graph, blocked nodes included. What stays open is the one minimum spanning forest. Each
// cycle has a highest node, so each is broken.
//
// That probes of lower origins need not cross has a second use: whether a way exists is all that counts, not which one. So a
// node passes a probe on once and not once for every way it comes, of which there are exponentially many in a dense mesh. A
// node whose detection is off counts as the lowest: it lets all probes cross and never blocks.
//
// The graph supposes that a tunnel carries what one of its nodes sends to all the others: a full mesh, or a hub that relays between
// its spokes. In an incomplete mesh, a blocked node cuts off what was reached through it alone.
//
// # Bouncing
//
// A network with two gateways, each with a tunnel to the same hub, which does not relay between them: nothing goes round
// for ever, but what the hub's network broadcasts comes back to it, through one gateway and the other, and its bridges look for
// their own stations behind the tunnel. So a node that does not relay a frame from one peer to another hands the probe to it all
// the same, marked as bounced. Such a probe counts where it is at home and goes no further.
//
// # What is not seen
//
// Probes are untagged. They keep the VLAN tags that they get under way, but a loop of one tagged VLAN alone is not found.
// Nor is one of more than 17 nodes, since [MaxPath] pass a probe on.
// Peers that all relay to one another form a loop inside the tunnel, which blocking an interface cannot break: relays must
// form a tree. A loop on the node's own network that goes through no tunnel is reported and left to that network.
//
// # Security
//
// Probes are not secret from anyone on a network they cross, nor authenticated beyond the tunnel's session.
//
//   - A forged block needs a real loop: whoever brings a node's probe back to it through a peer could bring every other frame
//     back as well. In particular a peer of two nodes on one network can have one of the two block, whether it relays between
//     them or not, and cut off what only that one reaches. It can have both block only if it is on that network by a third
//     way.
//   - Each probe has a fresh random nonce, good for one return within [Lifetime], so that recorded probes are worth nothing.
//   - A peer that passes frames but not probes, or that spoils the path in them, can keep a loop from being found. Limits on
//     storms must stand on their own.
//   - A flood of probes with invented origins is passed on up to [Rate], separately for those from the interface and those
//     from peers; a peer that floods can crowd out other peers' probes, unless the caller limits each. Memory is fixed: about
//     20 KiB.
//
// Nothing here does I/O or reads a clock: now is the time since some epoch, never zero, and never goes back. A Guard is not
// safe for concurrent use; [IsProbe] is.
package loopguard
