package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"culvert/control"
)

// aliveWithin is how long whatever must run may take to answer. A loop that is at work for so long is as good as stuck.
const aliveWithin = 3 * time.Second

// health is the answer of /healthz and /readyz.
type health struct {
	Status  string         `json:"status"` // "ok" or "failing"
	Reasons []string       `json:"reasons"`
	Tunnels []tunnelHealth `json:"tunnels,omitempty"` // of /readyz
}

// tunnelHealth is how it is with a tunnel.
type tunnelHealth struct {
	Interface string `json:"interface"`
	Up        bool   `json:"up"`
	Peers     int    `json:"peers"`
	Connected int    `json:"connected"` // peers with a session
}

// live answers whether the process does its work. Who restarts it asks this.
func live(ctx context.Context, s Source) health {
	h := health{Reasons: []string{}}
	if err := Alive(ctx, s); err != nil {
		h.Reasons = strings.Split(err.Error(), "\n")
	}
	return h.judged()
}

// Alive asks whether everything that must run does, and waits 3 seconds at most.
func Alive(ctx context.Context, s Source) error {
	ctx, cancel := context.WithTimeoutCause(ctx, aliveWithin, fmt.Errorf("no answer within %v", aliveWithin))
	defer cancel()
	return s.Alive(ctx)
}

func (h health) judged() health {
	h.Status = "ok"
	if len(h.Reasons) > 0 {
		h.Status = "failing"
	}
	return h
}

// wanted are the peers that /readyz is to see connected: none in particular, at least one of each tunnel, all, or those named.
type wanted struct {
	any, all bool
	names    []string
}

// maxNames bounds the peers that one request may name.
const maxNames = 256

func parseWanted(query []string) (w wanted, err error) {
	for _, q := range query {
		for name := range strings.SplitSeq(q, ",") {
			switch name {
			case "":
				return w, fmt.Errorf("peers: write peers=any, peers=all, or names of peers with commas between them")
			case "any":
				w.any = true
			case "all":
				w.all = true
			default:
				w.names = append(w.names, name)
			}
		}
	}
	if len(w.names) > maxNames {
		return w, fmt.Errorf("peers: at most %d can be named", maxNames)
	}
	return w, nil
}

// ready answers whether the instance can carry what it is there for.
func ready(s *Snapshot, w wanted) health {
	h := health{Reasons: []string{}, Tunnels: []tunnelHealth{}}
	say := func(format string, args ...any) { h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...)) }
	if !s.Ready {
		say("the instance is starting or ending")
	}
	connected := make(map[string]bool, len(w.names))
	for _, name := range w.names {
		connected[name] = false
	}
	known := make(map[string]bool, len(w.names))
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		is := tunnelHealth{Interface: t.Interface, Up: t.Up, Peers: len(t.Peers)}
		missing := 0
		for j := range t.Peers {
			p := &t.Peers[j]
			ok := p.Connected
			if ok {
				is.Connected++
			} else {
				missing++
			}
			if _, asked := connected[p.Name]; asked && p.Name != "" {
				known[p.Name] = true
				connected[p.Name] = connected[p.Name] || ok
			}
		}
		h.Tunnels = append(h.Tunnels, is)
		switch {
		case !t.Up:
			say("tunnel %s: its interface is down, or its port is not open", t.Interface)
		case w.all && missing > 0:
			say("tunnel %s: %d of %d peers have no session", t.Interface, missing, len(t.Peers))
		case w.any && is.Connected == 0 && len(t.Peers) > 0:
			say("tunnel %s: no peer has a session", t.Interface)
		}
	}
	for _, name := range w.names {
		switch {
		case !known[name]:
			say("there is no peer %.64q", name)
		case !connected[name]:
			say("peer %.64q has no session", name)
		}
	}
	return h.judged()
}

func (h health) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if len(h.Reasons) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(h)
}

// sessions counts the peers of a tunnel with a session.
func sessions(t *control.Tunnel) (n int) {
	for i := range t.Peers {
		if t.Peers[i].Connected {
			n++
		}
	}
	return n
}
