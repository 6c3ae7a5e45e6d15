package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"culvert/crypto"
	"culvert/crypto/enrolment"
)

func someLink(endpoints ...string) *Link {
	l := &Link{Endpoints: endpoints}
	for i := range crypto.KeySize {
		l.ServerKey[i], l.Secret[i] = byte(i+1), byte(200-i)
	}
	return l
}

func encoded(t *testing.T, l *Link) string {
	t.Helper()
	s, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLink(t *testing.T) {
	for _, endpoints := range [][]string{
		{"vpn.example.net:51820"}, {"192.0.2.1:1"}, {"[2001:db8::1]:65535", "vpn.example.net:51820", "a_b.c:443"},
	} {
		l := someLink(endpoints...)
		s := encoded(t, l)
		if !strings.HasPrefix(s, "culvert://"+endpoints[0]+"/#") || len(s) > MaxLink {
			t.Errorf("%s", s)
		}
		got, err := ParseLink(s)
		if err != nil || !slices.Equal(got.Endpoints, endpoints) || got.ServerKey != l.ServerKey || !got.Secret.Equal(l.Secret) {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
}

// TestMistypedLinks: no single character can be another, missing, or there twice.
func TestMistypedLinks(t *testing.T) {
	s := encoded(t, someLink("vpn.example.net:51820", "192.0.2.1:51820"))
	for i := range s {
		for _, wrong := range []string{s[:i] + s[i+1:], s[:i+1] + s[i:], s[:i] + "x" + s[i+1:], s[:i] + "1" + s[i+1:], s[:i] + "\n" + s[i:], s[:i]} {
			if wrong == s {
				continue
			}
			if _, err := ParseLink(wrong); err == nil {
				t.Errorf("%q is taken", wrong)
			} else if strings.Contains(err.Error(), s[len(s)-12:]) {
				t.Errorf("the error quotes the link: %v", err)
			}
		}
	}
}

func TestLinkOfAnotherVersion(t *testing.T) {
	payload := make([]byte, linkFixed)
	payload[0] = 2
	payload = append(payload, linkSum("a:1", payload)...)
	if _, err := ParseLink("culvert://a:1/#" + base64.RawURLEncoding.EncodeToString(payload)); !errors.Is(err, ErrLinkVersion) {
		t.Error(err)
	}
}

func TestLinkEndpoints(t *testing.T) {
	for _, e := range []string{"", "host", "host:0", "host:65536", "host:01", "host:+1", "-host:1", "ho st:1", "h/#:1", "[fe80::1%eth0]:1", "2001:db8::1:1",
		"[2001:DB8::1]:1", "a..b:1", strings.Repeat("a", 254) + ":1", "#:1"} {
		if _, err := someLink(e).Encode(); err == nil {
			t.Errorf("%q is taken", e)
		}
	}
	if _, err := someLink().Encode(); err == nil {
		t.Error("no endpoint is taken")
	}
	if _, err := someLink(slices.Repeat([]string{"a:1"}, MaxEndpoints+1)...).Encode(); err == nil {
		t.Error("too many endpoints are taken")
	}
	l := someLink("a:1")
	l.ServerKey = crypto.PublicKey{}
	if _, err := ParseLink(encoded(t, l)); err == nil {
		t.Error("a server's key of low order is taken")
	}
}

func TestLinkIsHidden(t *testing.T) {
	l := someLink("a:1")
	if text := fmt.Sprintf("%v %+v", l, *l); strings.Contains(text, "200") || strings.Contains(text, "c8c7") {
		t.Error(text)
	}
}

func FuzzParseLink(f *testing.F) {
	for _, l := range []*Link{someLink("vpn.example.net:51820"), someLink("[2001:db8::1]:1", "b:2")} {
		s, err := l.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s)
	}
	f.Add("culvert://a:1/#")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil || again != s {
			t.Errorf("%q is read, and written as %q, %v", s, again, err)
		}
		if len(l.Endpoints) > MaxEndpoints || l.Secret.Equal(enrolment.Secret{}) && len(s) < 80 {
			t.Errorf("%+v", l)
		}
	})
}
