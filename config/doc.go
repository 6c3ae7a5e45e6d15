// Package config reads configuration files: culvert's YAML and wg-quick's format.
//
// [Load] turns a file into typed values with their positions, having checked everything that the file alone can tell:
// types, ranges, unknown and duplicate keys, key files, and relations such as a network allowed to two peers. What is
// wrong is reported all at once as [Errors], each with file:line:column, the source line and what to do. The package
// knows no devices, sockets or tunnels; the program turns a [Tunnel] into what those need. The network around tunnels is read
// into the types of package spec, by a table from which docs/setup.md and docs/culvert.schema.json are made as well.
//
//go:generate go test -run TestReference|TestSchemaFile -docs .
package config
