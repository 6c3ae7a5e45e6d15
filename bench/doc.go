// Bench measures culvert side by side with wireguard-go on this machine: CPU time per gigabyte, throughput, small
// packets, memory and latency. It needs root and builds everything itself:
//
//	go run ./bench                  everything, five rounds, about 25 minutes
//	go run ./bench -quick           one short round: does it work at all?
//	go run ./bench -compare FILE    the table of results measured before
//
// Each measurement is made between two network namespaces joined by a veth pair, in which nothing else runs. The
// implementations take turns (A B B A ...), so that a machine that changes its speed meanwhile does so to all of them,
// and are compared by the ratios within a round. bench/README.md tells what each figure is and how to read it.
package main
