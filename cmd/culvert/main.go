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
// The network around tunnels, or alone:
//
//	culvert plan lab.yaml                      what would be made, changed, taken away
//	culvert apply lab.yaml                     do it
//	culvert destroy lab                        take it away again
//
// "culvert demo" shows a tunnel between two namespaces and cleans up after itself. "culvert help" lists the rest.
//
// Exit codes: 0 done; 1 failure; 2 wrong usage; 78 wrong configuration (EX_CONFIG of sysexits.h), in which case nothing
// was touched; 3 is that of "plan --exit-code" where there is something to do.
package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"culvert/confine"
)

// The process's first thread is that of the main goroutine alone. What is done in another namespace is done on a thread that is thrown
// away, but the first cannot be: it would stay there, and with it what /proc/PID/ns says of this process.
func init() { runtime.LockOSThread() }

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	p := newProgram(os.Stdin, os.Stdout, os.Stderr)
	p.confine = confine.Apply
	os.Exit(p.run(os.Args))
}
