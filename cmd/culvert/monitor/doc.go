// Package monitor tells of a running instance over HTTP: metrics for Prometheus, health for whoever restarts or balances, and a status page for
// people (docs/operations.md). It only reads: nothing that is asked of it changes anything, and no key but public ones is part of any answer.
//
// What it serves is made from a snapshot of the instance, which several readers at once share, so that their number costs the tunnels
// nothing. The server is bounded in connections, header bytes and times; GET and HEAD are all it knows; on loopback it answers only those who
// call it by a name of loopback, so that no web page can have a browser read it under a name of its own (DNS rebinding).
package monitor

//go:generate go test -run TestMetricsAreDocumented -docs .
