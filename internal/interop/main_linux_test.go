package interop

import (
	"flag"
	"testing"

	"culvert/internal/lab"
)

func TestMain(m *testing.M) {
	parallel := flag.Lookup("test.parallel")
	before := parallel.Value.String()
	flag.Parse()
	if parallel.Value.String() == before {
		// These tests wait for timers of the protocol more than they compute: more of them at once than there are cores.
		if err := flag.Set("test.parallel", "12"); err != nil {
			panic(err)
		}
	}
	lab.Main(m)
}
