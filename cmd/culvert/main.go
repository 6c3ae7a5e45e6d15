// Culvert builds encrypted tunnels on Linux. It speaks WireGuard's protocol to any WireGuard.
//
// The usual way is one YAML file per instance (or a wg-quick file, which is taken as it is):
//
//	culvert check /etc/culvert/office.yaml     what would it do, and is it right?
//	culvert up /etc/culvert/office.yaml        start the daemon; returns when the tunnel is up
//	culvert status office                      like wg show
//	culvert reload office                      apply a changed file, sessions stay
//	culvert down office                        take everything away again
//
// "culvert demo" shows a tunnel between two namespaces and cleans up after itself. "culvert help" lists the rest.
//
// Exit codes: 0 done; 1 failure; 2 wrong usage; 78 wrong configuration (EX_CONFIG of sysexits.h), in which case nothing
// was touched.
package main

import "os"

func main() {
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
