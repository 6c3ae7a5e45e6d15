// Package graph draws the devices of a plan or of a machine: links in boxes of their namespaces, and how they hang together.
//
// [New] makes a [Graph] of what is declared, of what is there, or of both, and then says of each thing whether it is missing, differs
// or is extra. [Graph.SVG] draws it with a layout of its own, [Graph.DOT] writes it for graphviz.
//
// Devices stand in rows by what they are on top of: what is there already at the bottom, then the ends of tunnels and cables, then
// bridges, bonds and teams, then what is stacked on a parent. Wires run in channels between the rows and pass a row through a gap kept
// free for them, so none runs through a device. All coordinates are integers and every order is fixed: the same input gives the same
// bytes on every machine.
//
// Names are untrusted: they are cut, freed of what cannot be printed, and escaped. The picture holds no script and refers to nothing.
package graph
