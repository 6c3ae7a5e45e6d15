package control

import (
	"fmt"
	"testing"
	"time"
)

// Of whom a daemon says whether there is a session, that holds; of whom an older one does not, the latest handshake says it.
func TestConnectedByOlderDaemons(t *testing.T) {
	at := func(ago time.Duration) string {
		return `"latest_handshake":"` + time.Now().Add(-ago).UTC().Format(time.RFC3339Nano) + `"`
	}
	for _, c := range []struct {
		says string
		want bool
	}{
		{at(time.Minute), true},
		{at(-time.Hour), true}, // the clock was set back
		{at(4 * time.Minute), false},
		{`"name":"a"`, false},
		{`"connected":false,` + at(time.Minute), false},
		{`"connected":true,` + at(time.Hour), true},
	} {
		status := fmt.Sprintf(`{"version":1,"instance":{"instance":"wg0","tunnels":[{"interface":"a"},{"interface":"b","peers":[{"name":"\"connected\":"},{%s}]}]}}`, c.says)
		in, err := NewClient(older(t, status), "wg0").Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if peers := in.Tunnels[1].Peers; peers[0].Connected || peers[1].Connected != c.want {
			t.Errorf("a peer with %s: connected %v", c.says, peers[1].Connected)
		}
		clients := fmt.Sprintf(`{"version":1,"clients":{"clients":[{%s}]}}`, c.says)
		list, err := NewClient(older(t, clients), "wg0").Clients(t.Context(), ClientsRequest{Do: DoList})
		if err != nil {
			t.Fatal(err)
		}
		if got := list.Clients[0].Connected; got != c.want {
			t.Errorf("a client with %s: connected %v", c.says, got)
		}
	}
}
