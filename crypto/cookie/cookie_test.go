package cookie

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"

	"culvert/crypto"
	"culvert/crypto/noise"
)

var (
	responder = crypto.PublicKey{1, 2, 3, 31: 7}
	stranger  = crypto.PublicKey{9, 2, 3, 31: 7}
	home      = netip.MustParseAddrPort("192.0.2.1:51820")
)

const sender = 0x11223344

// message is an initiation, KEM part or response that nothing looks into.
func message(typ byte) []byte {
	size := map[byte]int{
		noise.TypeInitiation: noise.InitiationSize, noise.TypeResponse: noise.ResponseSize,
		noise.TypeHybridInitiation: noise.HybridInitiationSize, noise.TypeKEM: noise.KEMSize, noise.TypeHybridResponse: noise.HybridResponseSize,
	}[typ]
	msg := bytes.Repeat([]byte{0xa5}, size)
	binary.LittleEndian.PutUint32(msg, uint32(typ))
	binary.LittleEndian.PutUint32(msg[4:], sender)
	return msg
}

var stampedTypes = []byte{noise.TypeInitiation, noise.TypeResponse, noise.TypeHybridInitiation, noise.TypeHybridResponse}

func reply(t testing.TB, c *Checker, msg []byte, src netip.AddrPort, now time.Duration) []byte {
	t.Helper()
	r, err := c.Reply(nil, msg, src, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func isZero(b []byte) bool { return bytes.Equal(b, make([]byte, len(b))) }

// TestMAC1 checks mac1 against its definition written out, and every bit of what it covers.
func TestMAC1(t *testing.T) {
	for _, typ := range stampedTypes {
		msg := message(typ)
		NewStamper(responder).Stamp(msg, 0)

		hashed := blake2s.Sum256(append([]byte("mac1----"), responder[:]...))
		h, err := blake2s.New128(hashed[:])
		if err != nil {
			t.Fatal(err)
		}
		h.Write(msg[:len(msg)-32])
		if !hmac.Equal(h.Sum(nil), msg[len(msg)-32:len(msg)-16]) {
			t.Errorf("type %d: mac1 is %x", typ, mac1Of(msg))
		}
		if !isZero(mac2Of(msg)) {
			t.Errorf("type %d: mac2 without a cookie", typ)
		}

		c := NewChecker(responder)
		if !c.CheckMAC1(msg) {
			t.Errorf("type %d: genuine mac1 refused", typ)
		}
		if NewChecker(stranger).CheckMAC1(msg) {
			t.Errorf("type %d: mac1 for another key accepted", typ)
		}
		for bit := range (len(msg) - 16) * 8 {
			bad := bytes.Clone(msg)
			bad[bit/8] ^= 1 << (bit % 8)
			if c.CheckMAC1(bad) {
				t.Errorf("type %d: accepted with bit %d flipped", typ, bit)
			}
		}
		for length := range len(msg) + 50 {
			if bad := append(bytes.Clone(msg), make([]byte, 50)...)[:length]; length != len(msg) && c.CheckMAC1(bad) {
				t.Errorf("type %d: accepted with length %d", typ, length)
			}
		}
	}
}

// TestExchange goes the whole way under load: mac1 alone, a cookie, mac2.
func TestExchange(t *testing.T) {
	for _, typ := range stampedTypes {
		for _, src := range []netip.AddrPort{home, netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[fe80::1%eth0]:9")} {
			s, c := NewStamper(responder), NewChecker(responder)
			now := 7 * time.Second
			msg := message(typ)
			s.Stamp(msg, now)
			if c.CheckMAC2(msg, src, now) {
				t.Fatal("mac2 accepted before there was a secret")
			}
			prefix := []byte("prefix")
			out, err := c.Reply(bytes.Clone(prefix), msg, src, now)
			if err != nil || !bytes.HasPrefix(out, prefix) {
				t.Fatal(err)
			}
			r := out[len(prefix):]
			if kind, ok := noise.MessageType(r); !ok || kind != noise.TypeCookieReply || noise.ReceiverIndex(r) != sender {
				t.Fatalf("header %x", r[:8])
			}
			if len(r) >= len(msg) {
				t.Error("the reply is longer than what it answers")
			}
			if c.CheckMAC2(msg, src, now) {
				t.Fatal("mac2 accepted without a cookie")
			}
			if err := s.ConsumeReply(r, now); err != nil {
				t.Fatal(err)
			}
			s.Stamp(msg, now)
			if !c.CheckMAC1(msg) || !c.CheckMAC2(msg, src, now) {
				t.Fatal("macs with the cookie refused")
			}
			for bit := range len(msg) * 8 {
				bad := bytes.Clone(msg)
				bad[bit/8] ^= 1 << (bit % 8)
				if c.CheckMAC2(bad, src, now) {
					t.Errorf("mac2 accepted with bit %d flipped", bit)
				}
			}
		}
	}
}

// held returns a stamper with a cookie for src, taken at time at, and the checker behind it.
func held(t testing.TB, src netip.AddrPort, at time.Duration) (*Stamper, *Checker) {
	t.Helper()
	s, c := NewStamper(responder), NewChecker(responder)
	msg := message(noise.TypeInitiation)
	s.Stamp(msg, at)
	if err := s.ConsumeReply(reply(t, c, msg, src, at), at); err != nil {
		t.Fatal(err)
	}
	return s, c
}

func TestBoundToSource(t *testing.T) {
	sources := []netip.AddrPort{
		home,
		netip.MustParseAddrPort("192.0.2.2:51820"),
		netip.MustParseAddrPort("192.0.2.1:51821"),
		netip.MustParseAddrPort("192.0.2.1:27850"), // 51820 with its bytes swapped
		netip.MustParseAddrPort("[2001:db8::1]:51820"),
		netip.MustParseAddrPort("[2001:db8::2]:51820"),
		netip.MustParseAddrPort("[2001:db8::1]:51821"),
		netip.MustParseAddrPort("[c000:201:ca6c::]:0"), // the bytes of home, as an IPv6 address
		netip.MustParseAddrPort("[::192.0.2.1]:51820"),
		netip.MustParseAddrPort("[64:ff9b::192.0.2.1]:51820"),
	}
	for i, from := range sources {
		s, c := held(t, from, 0)
		msg := message(noise.TypeInitiation)
		s.Stamp(msg, 0)
		for j, to := range sources {
			if got := c.CheckMAC2(msg, to, 0); got != (i == j) {
				t.Errorf("cookie for %v seen from %v: %v", from, to, got)
			}
		}
	}
	// The same address by an IPv6 socket.
	s, c := held(t, home, 0)
	msg := message(noise.TypeInitiation)
	s.Stamp(msg, 0)
	if !c.CheckMAC2(msg, netip.MustParseAddrPort("[::ffff:192.0.2.1]:51820"), 0) {
		t.Error("an IPv4 address mapped into IPv6 is another one")
	}
	if c.CheckMAC2(msg, netip.AddrPort{}, 0) {
		t.Error("accepted from no address")
	}
}

// TestSecretRotates: a secret lasts 120 s from its first use, to the nanosecond.
func TestSecretRotates(t *testing.T) {
	const born = 1000 * time.Second
	s, c := held(t, home, born)
	msg := message(noise.TypeInitiation)
	s.Stamp(msg, born)
	for _, step := range []struct {
		at   time.Duration
		want bool
	}{{born, true}, {born + 119*time.Second, true}, {born + 120*time.Second - 1, true}, {born + 120*time.Second, false}, {born + time.Hour, false}} {
		if got := c.CheckMAC2(msg, home, step.at); got != step.want {
			t.Errorf("%v after its birth: %v", step.at-born, got)
		}
	}
	first, err := c.current(born + 120*time.Second - 1)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.current(born + 120*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Error("the secret did not change")
	}
	if c.CheckMAC2(msg, home, born+120*time.Second) {
		t.Error("a cookie of the old secret accepted under the new")
	}
	if third, _ := c.current(born + 240*time.Second - 1); third != second {
		t.Error("the second secret did not last")
	}
	if isZero(first.key[:]) || isZero(second.key[:]) {
		t.Error("a zero secret")
	}
	// Another receive worker read its clock a moment before the one that made the secret.
	if young, _ := c.current(born + 119*time.Second); young != second {
		t.Error("an older time brought another secret")
	}
}

// TestCookieExpires: its receiver uses a cookie below 120 s.
func TestCookieExpires(t *testing.T) {
	const at = 50 * time.Second
	s, _ := held(t, home, at)
	for _, step := range []struct {
		now  time.Duration
		want bool
	}{{at, true}, {at + 120*time.Second - 1, true}, {at + 120*time.Second, false}, {at, false}} { // once expired it is gone
		msg := message(noise.TypeInitiation)
		s.Stamp(msg, step.now)
		if got := !isZero(mac2Of(msg)); got != step.want {
			t.Errorf("mac2 %v after the cookie came: %v", step.now-at, got)
		}
		if !NewChecker(responder).CheckMAC1(msg) {
			t.Error("wrong mac1")
		}
	}
	if !isZero(s.cookie[:]) {
		t.Error("an expired cookie is kept")
	}
}

// TestStampOverwrites: whatever stood in the macs before makes no difference.
func TestStampOverwrites(t *testing.T) {
	a, b := message(noise.TypeResponse), message(noise.TypeResponse)
	clear(b[len(b)-32:])
	NewStamper(responder).Stamp(a, 0)
	NewStamper(responder).Stamp(b, 0)
	if !bytes.Equal(a, b) {
		t.Error("the macs depend on what stood there")
	}
}

func TestReplyBoundToLastMAC1(t *testing.T) {
	s, c := NewStamper(responder), NewChecker(responder)
	first, second := message(noise.TypeInitiation), message(noise.TypeInitiation)
	second[50] = 1
	never := reply(t, c, first, home, 0)
	if err := s.ConsumeReply(never, 0); !errors.Is(err, ErrCookie) {
		t.Errorf("before anything was sent: %v", err)
	}
	s.Stamp(first, 0)
	toFirst := reply(t, c, first, home, 0)
	s.Stamp(second, 0)
	if err := s.ConsumeReply(toFirst, 0); !errors.Is(err, ErrCookie) {
		t.Errorf("the reply to a message before the last: %v", err)
	}
	toSecond := reply(t, c, second, home, 0)
	if err := s.ConsumeReply(reply(t, NewChecker(stranger), second, home, 0), 0); !errors.Is(err, ErrCookie) {
		t.Errorf("another responder's reply: %v", err)
	}
	if err := s.ConsumeReply(toSecond, 0); err != nil {
		t.Errorf("the reply to the last message: %v", err)
	}
	// A replay would prolong the cookie's life.
	if err := s.ConsumeReply(toSecond, time.Minute); !errors.Is(err, ErrCookie) {
		t.Errorf("the same reply again: %v", err)
	}
	if s.since != 0 {
		t.Error("a refused reply renewed the cookie")
	}
	s.Stamp(second, 0) // the same mac1 again awaits a reply again
	if err := s.ConsumeReply(toSecond, 0); err != nil {
		t.Errorf("after sending again: %v", err)
	}
}

// TestEveryBitOfReply flips each bit of a cookie reply: never taken, nothing changed, and the genuine one taken afterwards.
func TestEveryBitOfReply(t *testing.T) {
	s, c := NewStamper(responder), NewChecker(responder)
	msg := message(noise.TypeInitiation)
	s.Stamp(msg, 0)
	genuine := reply(t, c, msg, home, 0)
	check := func(what string, bad []byte) {
		t.Helper()
		if err := s.ConsumeReply(bad, 0); !errors.Is(err, ErrCookie) {
			t.Errorf("%s: %v", what, err)
		}
		if s.held || !s.awaiting {
			t.Fatalf("%s: the stamper changed", what)
		}
	}
	for bit := range len(genuine) * 8 {
		bad := bytes.Clone(genuine)
		bad[bit/8] ^= 1 << (bit % 8)
		check(fmt.Sprintf("bit %d", bit), bad)
	}
	for length := range 2 * len(genuine) {
		if length != len(genuine) {
			check(fmt.Sprintf("length %d", length), append(bytes.Clone(genuine), genuine...)[:length])
		}
	}
	if err := s.ConsumeReply(genuine, 0); err != nil {
		t.Errorf("the genuine reply: %v", err)
	}
}

func TestUnstamped(t *testing.T) {
	c := NewChecker(responder)
	for _, msg := range [][]byte{nil, {1, 0, 0, 0}, append([]byte{4, 0, 0, 0}, make([]byte, 144)...), append([]byte{3, 0, 0, 0}, make([]byte, 60)...)} {
		if out, err := c.Reply([]byte("ab"), msg, home, 0); !errors.Is(err, noise.ErrMessage) || string(out) != "ab" {
			t.Errorf("Reply to %d bytes: %q, %v", len(msg), out, err)
		}
		if c.CheckMAC1(msg) || c.CheckMAC2(msg, home, 0) {
			t.Errorf("%d bytes have macs", len(msg))
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bytes stamped", len(msg))
				}
			}()
			NewStamper(responder).Stamp(msg, 0)
		}()
	}
}

// TestFreshNonces: the same question twice gets different bytes.
func TestFreshNonces(t *testing.T) {
	c := NewChecker(responder)
	msg := message(noise.TypeInitiation)
	NewStamper(responder).Stamp(msg, 0)
	if bytes.Equal(reply(t, c, msg, home, 0)[8:32], reply(t, c, msg, home, 0)[8:32]) {
		t.Error("a nonce came twice")
	}
}

func TestErase(t *testing.T) {
	s, _ := held(t, home, 0)
	msg := message(noise.TypeInitiation)
	s.Stamp(msg, 0)
	s.Erase()
	if s.held || s.awaiting || !isZero(s.cookie[:]) || !isZero(s.last[:]) {
		t.Error("something left after Erase")
	}
}

func TestConcurrently(t *testing.T) {
	c := NewChecker(responder)
	good := message(noise.TypeInitiation)
	NewStamper(responder).Stamp(good, 0)
	bad := bytes.Clone(good)
	bad[60] ^= 1
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for round := range 300 {
				now := time.Duration(round) * time.Second // passes several rotations
				if !c.CheckMAC1(good) || c.CheckMAC1(bad) {
					t.Error("CheckMAC1 is wrong")
					return
				}
				c.CheckMAC2(good, home, now)
				if (round+worker)%5 == 0 {
					if _, err := c.Reply(nil, good, home, now); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestAllocations(t *testing.T) {
	c := NewChecker(responder)
	good := message(noise.TypeInitiation)
	NewStamper(responder).Stamp(good, 0)
	bad := bytes.Clone(good)
	bad[60] ^= 1
	kem, hybrid := message(noise.TypeKEM), message(noise.TypeHybridResponse)
	NewStamper(responder).StampKEM(kem)
	NewStamper(responder).Stamp(hybrid, 0)
	for name, msg := range map[string][]byte{"right": good, "wrong": bad, "short": good[:100], "empty": nil, "KEM": kem, "hybrid": hybrid} {
		if avg := testing.AllocsPerRun(500, func() { c.CheckMAC1(msg) }); avg != 0 {
			t.Errorf("CheckMAC1 of a %s message allocates %v times", name, avg)
		}
	}
}

func TestHidden(t *testing.T) {
	s, c := held(t, home, 0)
	for _, v := range []any{s, *s, c} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			if got := fmt.Sprintf(verb, v); got != "(hidden)" {
				t.Errorf("%T with %s: %q", v, verb, got)
			}
		}
		if text, err := json.Marshal(v); err != nil || string(text) != `"(hidden)"` {
			t.Errorf("%T as JSON: %s, %v", v, text, err)
		}
	}
}

// TestVector reads an exchange whose cookie, macs and reply were computed without Go: with the BLAKE2s of Python's hashlib, and
// XChaCha20-Poly1305 written out from RFC 8439 and draft-irtf-cfrg-xchacha.
func TestVector(t *testing.T) {
	text, err := os.ReadFile("testdata/cookie.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Public, Secret, Source, Message, Reply, Cookie, Stamped string }
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		t.Helper()
		b, err := hex.DecodeString(s)
		if err != nil || len(b) == 0 {
			t.Fatalf("%q: %v", s, err)
		}
		return b
	}
	public, src := crypto.PublicKey(unhex(v.Public)), netip.MustParseAddrPort(v.Source)
	s, c := NewStamper(public), NewChecker(public)
	c.secret = secret{key: [32]byte(unhex(v.Secret)), alive: true}

	msg := unhex(v.Message)
	s.Stamp(msg, 0)
	if err := s.ConsumeReply(unhex(v.Reply), 0); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(s.cookie[:]); got != v.Cookie {
		t.Errorf("cookie %s", got)
	}
	s.Stamp(msg, 0)
	if got := hex.EncodeToString(msg); got != v.Stamped {
		t.Errorf("stamped %s", got)
	}
	if !c.CheckMAC1(msg) || !c.CheckMAC2(msg, src, 0) {
		t.Error("refused")
	}
}

// FuzzConsumeReply gives a stamper arbitrary bytes: nothing but the reply to its message is taken.
func FuzzConsumeReply(f *testing.F) {
	msg := message(noise.TypeInitiation)
	NewStamper(responder).Stamp(msg, 0)
	c := NewChecker(responder)
	c.secret = secret{key: [32]byte{5}, alive: true} // so that the cookie is the same in each of the fuzzer's processes
	genuine := reply(f, c, msg, home, 0)
	f.Add(genuine)
	f.Add(genuine[:63])
	f.Add(append(bytes.Clone(genuine), 0))
	f.Add([]byte{3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewStamper(responder)
		again := message(noise.TypeInitiation)
		s.Stamp(again, 0)
		if err := s.ConsumeReply(data, 0); err != nil {
			if !errors.Is(err, ErrCookie) || s.held || !s.awaiting {
				t.Errorf("%v, and the stamper changed", err)
			}
			if err := s.ConsumeReply(genuine, 0); err != nil {
				t.Errorf("the genuine reply afterwards: %v", err)
			}
			return
		}
		if want := c.secret.cookie(home); s.cookie != want {
			t.Errorf("took a cookie nobody gave from %x", data)
		}
	})
}

// FuzzChecker gives a checker arbitrary datagrams: mac1 holds for nothing but what was stamped.
func FuzzChecker(f *testing.F) {
	for _, typ := range stampedTypes {
		msg := message(typ)
		NewStamper(responder).Stamp(msg, 0)
		f.Add(msg)
		f.Add(msg[:len(msg)-1])
	}
	kem := message(noise.TypeKEM)
	NewStamper(responder).StampKEM(kem)
	f.Add(kem)
	f.Add([]byte{1, 0, 0, 0})
	c := NewChecker(responder)
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		ok := c.CheckMAC1(data)
		c.CheckMAC2(data, home, 0)
		if !bytes.Equal(data, before) {
			t.Fatal("the message was changed")
		}
		if accepted := c.AcceptsMAC2(data, home, 0); ok && accepted && !isZero(mac2Of(data)) {
			t.Error("accepted a mac2 before there was a secret")
		}
		if !ok {
			return
		}
		again := bytes.Clone(data)
		if stamped(data) {
			NewStamper(responder).Stamp(again, 0)
		} else {
			NewStamper(responder).StampKEM(again)
		}
		_, want, _ := splitMAC1(again)
		if _, mac1, _ := splitMAC1(data); !bytes.Equal(mac1, want) {
			t.Error("another mac1 is right as well")
		}
	})
}

func BenchmarkCheckMAC1(b *testing.B) {
	c := NewChecker(responder)
	msg := message(noise.TypeInitiation)
	NewStamper(responder).Stamp(msg, 0)
	b.ReportAllocs()
	for b.Loop() {
		if !c.CheckMAC1(msg) {
			b.Fatal("refused")
		}
	}
}

func BenchmarkCheckMAC2(b *testing.B) {
	s, c := held(b, home, 0)
	msg := message(noise.TypeInitiation)
	s.Stamp(msg, 0)
	b.ReportAllocs()
	for b.Loop() {
		if !c.CheckMAC2(msg, home, 0) {
			b.Fatal("refused")
		}
	}
}
