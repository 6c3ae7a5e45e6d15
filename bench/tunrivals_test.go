package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

func TestParseRivals(t *testing.T) {
	for text, want := range map[string][]string{"": nil, "tinc,nebula": {"Nebula", "tinc"},
		"all": {relayWholeName, "Tailscale's fork", "Nebula", "fastd", "OpenVPN", "tinc"}} {
		list, err := parseRivals(text)
		var names []string
		for _, r := range list {
			names = append(names, r.name)
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("%q: %q, %v, want %q", text, names, err, want)
		}
	}
	if _, err := parseRivals("tinc,cinc"); err == nil || !strings.Contains(err.Error(), `"cinc" is neither all nor one of relay-whole, tailscale`) {
		t.Errorf("error %v", err)
	}
}

// TestTunRivals has each carry packets, both ways and in datagrams that fit the underlay.
func TestTunRivals(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	for _, r := range append([]*rival{&relayOfSegments}, mustParseRivals(t, "all")...) {
		t.Run(r.name, func(t *testing.T) {
			err := onStage(t.Context(), func(s *stage) error {
				o := &options{Window: 300 * time.Millisecond, Warmup: 100 * time.Millisecond}
				list, missing, err := tunRivalImplementations(s, Machine{}, []*rival{r})
				if err != nil {
					return err
				}
				if len(missing) > 0 {
					lab.Skip(t, missing[0])
				}
				impl := list[0]
				if impl.Name != r.name || impl.Version == "" {
					t.Errorf("of unknown make: %+v", impl)
				}
				sc, err := newScene(s, o, withoutOffloads, impl)
				if err != nil {
					return err
				}
				for i, w := range []way{forward, reverse} {
					m, _, err := sc.tcp(1, w, false)
					if err != nil {
						return err
					}
					checkDatagrams(t, sc, sc.hosts[1-i], m.Bytes)
				}
				return sc.wholeDatagrams()
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func mustParseRivals(t *testing.T, text string) []*rival {
	t.Helper()
	list, err := parseRivals(text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestUnbuiltRival wants what cannot be built to be told of, and the rest to be there.
func TestUnbuiltRival(t *testing.T) {
	unbuilt := &rival{name: "nobody", build: func(*stage) (string, error) { return "", errors.New("no network") }}
	err := onStage(t.Context(), func(s *stage) error {
		list, missing, err := tunRivalImplementations(s, Machine{Commit: "abc"}, []*rival{unbuilt, &relayOfWhole})
		if len(list) != 1 || list[0].Name != relayWholeName || !slices.Equal(missing, []string{"nobody cannot be built: no network"}) {
			return fmt.Errorf("%+v, missing %q", list, missing)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTunFiles(t *testing.T) {
	files, _ := configured(t, openVPNTun, "", false, tunnelMTU)
	wantLines(t, files[0]["bench.conf"], "dev wg0", "dev-type tun", "tun-mtu 1420")
	files, _ = configured(t, tincTun, "", false, tunnelMTU)
	for i := range files {
		wantLines(t, files[i]["tinc.conf"], "Mode = router")
		wantLines(t, files[i]["hosts/a"], "Subnet = 198.51.100.1/32")
		wantLines(t, files[i]["hosts/b"], "Subnet = 198.51.100.2/32")
	}
	if _, err := nebula.configure(filepath.Join(t.TempDir(), "nebula"), [2]rivalEnd{{folder: t.TempDir()}, {folder: t.TempDir()}}); err == nil {
		t.Error("Nebula: no program for certificates, no error")
	}
}
