// Bench measures culvert side by side with other daemons on this machine: CPU time per gigabyte, throughput, small
// packets, memory and latency. It needs root and builds everything itself:
//
//	go run ./bench                  all but what is below, five rounds, about 25 minutes
//	go run ./bench -quick           one short round: does it work at all?
//	go run ./bench -parts tap       Ethernet tunnels, beside fastd's, OpenVPN's and tinc's
//	go run ./bench -parts frames    a switch with a peer that sends hostile frames; no root needed
//	go run ./bench -parts cores     engines on one processor and on more, over loopback; no root needed
//	go run ./bench -parts setup     networks of up to 1,000 devices, planned, applied and destroyed
//	go run ./bench -parts peers     daemons with up to 10,000 peers
//	go run ./bench -rivals all      other projects' tunnels as well
//	go run ./bench -plot DIR FILE   pictures of results measured before
//	go run ./bench -compare FILE    the table of results measured before
//
// Each measurement is made between two network namespaces joined by a veth pair, in which nothing else runs. The
// implementations take turns (A B B A ...), so that a machine that changes its speed meanwhile does so to all of them,
// and are compared by the ratios within a round. bench/README.md tells what each figure is and how to read it.
package main
