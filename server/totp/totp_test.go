package totp

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base32"
	"hash"
	"net/url"
	"strings"
	"testing"
	"time"
)

// RFC 6238 appendix B. The seeds are those of its reference implementation: the same digits, up to the length of each hash.
func TestVectors(t *testing.T) {
	const digits = "1234567890"
	seed := func(n int) []byte { return []byte(strings.Repeat(digits, 7)[:n]) }
	hashes := []struct {
		new  func() hash.Hash
		seed []byte
	}{{sha1.New, seed(20)}, {sha256.New, seed(32)}, {sha512.New, seed(64)}}
	for at, want := range map[int64][3]string{
		59:          {"94287082", "46119246", "90693936"},
		1111111109:  {"07081804", "68084774", "25091201"},
		1111111111:  {"14050471", "67062674", "99943326"},
		1234567890:  {"89005924", "91819424", "93441116"},
		2000000000:  {"69279037", "90698825", "38618901"},
		20000000000: {"65353130", "77737706", "47863826"},
	} {
		for i, h := range hashes {
			if got := Code(h.new, h.seed, Step(time.Unix(at, 0)), 8); got != want[i] {
				t.Errorf("at %d, hash %d: %s, want %s", at, i, got, want[i])
			}
		}
	}
}

// RFC 4226 appendix D, which has six digits.
func TestVectorsOfHOTP(t *testing.T) {
	for step, want := range []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"} {
		if got := Code(sha1.New, []byte("12345678901234567890"), uint64(step), Digits); got != want {
			t.Errorf("%d: %s, want %s", step, got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	secret := []byte("12345678901234567890")
	now := time.Unix(10_000*30+29, 0)
	for _, c := range []struct {
		of, used uint64
		ok       bool
	}{
		{10_000, 0, true}, {9_999, 0, true}, {10_001, 0, true}, {9_998, 0, false}, {10_002, 0, false},
		{10_000, 9_999, true}, {10_000, 10_000, false}, {9_999, 10_000, false}, {10_001, 10_000, true}, {10_001, 10_001, false},
	} {
		step, ok := Match(secret, Code(sha1.New, secret, c.of, Digits), now, c.used)
		if ok != c.ok || ok && step != c.of {
			t.Errorf("the code of %d, used up to %d: %d, %v", c.of, c.used, step, ok)
		}
	}
	for _, wrong := range []string{"", "0", "00000a", strings.Repeat("1", 4096), " " + Code(sha1.New, secret, 10_000, Digits)} {
		if _, ok := Match(secret, wrong, now, 0); ok {
			t.Errorf("%.20q is taken", wrong)
		}
	}
	if _, ok := Match(secret, Code(sha1.New, secret, 1, Digits), time.Unix(-1, 0), 0); !ok {
		t.Error("before 1970 the periods are counted anew")
	}
}

func TestLink(t *testing.T) {
	secret := GenerateSecret()
	if len(secret) != SecretSize || string(secret) == string(GenerateSecret()) {
		t.Fatal("secrets are not random")
	}
	link := Link(secret, "office vpn", "alice@example.net")
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/office vpn:alice@example.net" || strings.ContainsAny(link, " +") {
		t.Fatalf("%s: %v", link, err)
	}
	q := u.Query()
	back, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(q.Get("secret"))
	if err != nil || string(back) != string(secret) || q.Get("issuer") != "office vpn" || q.Get("digits") != "6" || q.Get("period") != "30" {
		t.Errorf("%v, %v", q, err)
	}
}

func TestGuesses(t *testing.T) {
	var g Guesses
	now := time.Unix(1e9, 0)
	for i := range Free - 1 {
		if g.Failed(now); g.Wait(now) != 0 {
			t.Fatalf("a wait after %d wrong codes", i+1)
		}
	}
	want := FirstWait
	for range 12 {
		g.Failed(now)
		if got := g.Wait(now); got != want {
			t.Fatalf("a wait of %v after %d, want %v", got, g.Wrong, want)
		}
		now = now.Add(want)
		if g.Wait(now) != 0 {
			t.Fatal("the wait does not end")
		}
		want = min(2*want, MaxWait)
	}
	if g.Wait(now.Add(-1000*time.Hour)) != MaxWait {
		t.Error("a clock that was set back locks out for longer than ever")
	}
	g.Wrong = 1 << 20
	if g.Failed(now); g.Wait(now) != MaxWait || g.Wrong != 1<<20 {
		t.Errorf("%+v", g)
	}
	// A flood: a guess whenever one is taken, for a month.
	g = Guesses{}
	taken := 0
	for at := time.Duration(0); at < 30*24*time.Hour; at += time.Second {
		if g.Wait(now.Add(at)) == 0 {
			g.Failed(now.Add(at))
			taken++
		}
	}
	if taken > 30*24+Free+10 {
		t.Errorf("%d guesses are taken in 30 days", taken)
	}
}
