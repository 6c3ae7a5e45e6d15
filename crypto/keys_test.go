package crypto

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// hexKey is 64 digits, from the vectors below.
func hexKey(t testing.TB, s string) (k [KeySize]byte) {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != KeySize {
		t.Fatalf("bad test key %q", s)
	}
	return [KeySize]byte(b)
}

// TestX25519Vectors is RFC 7748 §6.1, then the two multiplications of §5.2, whose scalars are not clamped.
func TestX25519Vectors(t *testing.T) {
	alice := PrivateKey(hexKey(t, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
	bob := PrivateKey(hexKey(t, "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
	if got := alice.Public().Hex(); got != "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a" {
		t.Errorf("Alice's public key: %s", got)
	}
	if got := bob.Public().Hex(); got != "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f" {
		t.Errorf("Bob's public key: %s", got)
	}
	for _, c := range []struct {
		name   string
		scalar PrivateKey
		point  PublicKey
		want   string
	}{
		{"Alice", alice, bob.Public(), "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"},
		{"Bob", bob, alice.Public(), "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"},
		{
			"§5.2, first", hexKey(t, "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
			hexKey(t, "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
			"c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
		},
		{
			"§5.2, second", hexKey(t, "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
			hexKey(t, "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
			"95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
		},
	} {
		got, err := c.scalar.DH(c.point)
		if err != nil || got != hexKey(t, c.want) {
			t.Errorf("%s: %x, %v", c.name, got, err)
		}
	}
}

func TestGenerate(t *testing.T) {
	seen := make(map[[KeySize]byte]bool)
	for range 50 {
		k, err := GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		if k[0]&7 != 0 || k[31]&0xc0 != 0x40 {
			t.Fatal("private key is not clamped")
		}
		p, err := GeneratePresharedKey()
		if err != nil {
			t.Fatal(err)
		}
		seen[k], seen[p] = true, true
	}
	if len(seen) != 100 {
		t.Errorf("%d different keys of 100", len(seen))
	}
}

func TestSharedSecret(t *testing.T) {
	a, _ := GeneratePrivateKey()
	b, _ := GeneratePrivateKey()
	ab, err := a.DH(b.Public())
	if err != nil {
		t.Fatal(err)
	}
	ba, err := b.DH(a.Public())
	if err != nil || ab != ba || ab == [KeySize]byte{} {
		t.Errorf("the two ends disagree: %v", err)
	}
	// Clamping belongs to X25519, so the bits it sets make no difference.
	loose := a
	loose[0] |= 7
	loose[31] ^= 0xc0
	if loose.Public() != a.Public() {
		t.Error("an unclamped key has another public key")
	}
}

func TestLowOrder(t *testing.T) {
	private, _ := GeneratePrivateKey()
	k, err := NewKeyPair(private)
	if err != nil {
		t.Fatal(err)
	}
	for _, point := range lowOrder {
		for _, top := range []byte{0, 0x80} { // the top bit is ignored
			point[31] = point[31]&0x7f | top
			secret, err := k.DH(point)
			if !errors.Is(err, ErrLowOrder) || secret != [KeySize]byte{} {
				t.Errorf("%v: %v", point, err)
			}
			if !point.IsLowOrder() {
				t.Errorf("%v is not said to be of low order", point)
			}
			for bit := range 8 * KeySize { // what is next to it is none, unless Diffie-Hellman says so too
				near := point
				near[bit/8] ^= 1 << (bit % 8)
				if _, err := k.DH(near); near.IsLowOrder() != errors.Is(err, ErrLowOrder) {
					t.Errorf("%v is said to be of low order: %v, and Diffie-Hellman says %v", near, near.IsLowOrder(), err)
				}
			}
		}
	}
}

func TestZeroKey(t *testing.T) {
	var zero PrivateKey
	if !zero.Public().IsZero() {
		t.Error("the zero key has a public key")
	}
	other, _ := GeneratePrivateKey()
	if _, err := zero.DH(other.Public()); !errors.Is(err, ErrZeroKey) {
		t.Errorf("DH of the zero key: %v", err)
	}
	if _, err := NewKeyPair(zero); !errors.Is(err, ErrZeroKey) {
		t.Errorf("NewKeyPair: %v", err)
	}
}

func TestZero(t *testing.T) {
	k, _ := GeneratePrivateKey()
	p, _ := GeneratePresharedKey()
	if k.IsZero() || p.IsZero() {
		t.Fatal("generated keys are zero")
	}
	k.Zero()
	p.Zero()
	if !k.IsZero() || k != (PrivateKey{}) || !p.IsZero() || p != (PresharedKey{}) {
		t.Error("keys left after Zero")
	}
}

func TestEqualAndCompare(t *testing.T) {
	a, _ := GeneratePrivateKey()
	for bit := range KeySize * 8 {
		b := a
		b[bit/8] ^= 1 << (bit % 8)
		if a.Equal(b) || PresharedKey(a).Equal(PresharedKey(b)) || PublicKey(a).Equal(PublicKey(b)) {
			t.Fatalf("equal with bit %d flipped", bit)
		}
		want := bytes.Compare(a[:], b[:])
		if PublicKey(a).Compare(PublicKey(b)) != want || PublicKey(b).Compare(PublicKey(a)) != -want {
			t.Fatalf("order with bit %d flipped", bit)
		}
	}
	if !a.Equal(a) || !PresharedKey(a).Equal(PresharedKey(a)) || !PublicKey(a).Equal(PublicKey(a)) || PublicKey(a).Compare(PublicKey(a)) != 0 {
		t.Error("a key differs from itself")
	}
}

func TestParse(t *testing.T) {
	var raw [KeySize]byte
	for i := range raw {
		raw[i] = byte(i*7 + 3)
	}
	b64, digits := base64.StdEncoding.EncodeToString(raw[:]), hex.EncodeToString(raw[:])
	if k, err := ParsePrivateKey(b64); err != nil || k != raw || k.Base64() != b64 || k.Hex() != digits {
		t.Errorf("private: %v", err)
	}
	if k, err := ParsePublicKey(b64); err != nil || k != raw || k.Base64() != b64 || k.Hex() != digits || k.String() != b64 {
		t.Errorf("public: %v", err)
	}
	if k, err := ParsePresharedKey(b64); err != nil || k != raw || k.Base64() != b64 || k.Hex() != digits {
		t.Errorf("preshared: %v", err)
	}
	for _, s := range []string{digits, strings.ToUpper(digits)} {
		if k, err := ParsePrivateKeyHex(s); err != nil || k != raw {
			t.Errorf("private hex: %v", err)
		}
		if k, err := ParsePublicKeyHex(s); err != nil || k != raw {
			t.Errorf("public hex: %v", err)
		}
		if k, err := ParsePresharedKeyHex(s); err != nil || k != raw {
			t.Errorf("preshared hex: %v", err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dw="
	if _, err := ParsePublicKey(good); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", good[:43], good + "=", good + "\n", " " + good, good[:42] + "x=", // the last: bits behind the key
		good[:43] + "A", good[:42] + "==", "=" + good[1:], strings.Replace(good, "8", "-", 1), strings.Replace(good, "8", "_", 1),
		good[:20] + "\n" + good[21:], good[:20] + "\r\n" + good[22:], good[:43] + "\n", good[:20] + "\x00" + good[21:], strings.Repeat("=", 44),
		strings.Repeat("\n", 44), strings.Repeat("é", 22),
	} {
		for name, err := range map[string]error{
			"private":   second(ParsePrivateKey(s)),
			"public":    second(ParsePublicKey(s)),
			"preshared": second(ParsePresharedKey(s)),
			"unmarshal": new(PublicKey).UnmarshalText([]byte(s)),
		} {
			refused(t, name, s, err)
		}
	}
	digits := strings.Repeat("0a", KeySize)
	for _, s := range []string{
		"", digits[:63], digits + "0", digits + "\n", " " + digits[1:], "0x" + digits[2:], digits[:63] + "g", strings.Repeat("é", 32),
	} {
		for name, err := range map[string]error{
			"private hex":   second(ParsePrivateKeyHex(s)),
			"public hex":    second(ParsePublicKeyHex(s)),
			"preshared hex": second(ParsePresharedKeyHex(s)),
		} {
			refused(t, name, s, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// refused checks for the sentinel, and that the error quotes nothing of the text.
func refused(t *testing.T, name, s string, err error) {
	t.Helper()
	if !errors.Is(err, ErrKeySyntax) {
		t.Errorf("%s %q: %v", name, s, err)
		return
	}
	for i := 0; i+4 <= len(s); i++ {
		if strings.Contains(err.Error(), s[i:i+4]) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}

func TestPublicKeyText(t *testing.T) {
	a, _ := GeneratePrivateKey()
	want := map[string]PublicKey{"key": a.Public()}
	text, err := json.Marshal(want)
	if err != nil || string(text) != `{"key":"`+a.Public().Base64()+`"}` {
		t.Fatalf("%s, %v", text, err)
	}
	var got map[string]PublicKey
	if err := json.Unmarshal(text, &got); err != nil || got["key"] != want["key"] {
		t.Errorf("%v, %v", got, err)
	}
	kept := a.Public()
	if err := kept.UnmarshalText([]byte("nonsense")); err == nil || kept != a.Public() {
		t.Error("a failed UnmarshalText changed the key")
	}
}

// TestHidden prints secrets in every way that prints by itself, looking for the key in all spellings of its bytes. Not among
// them are %p and %w, for which fmt asks no methods of an array; vet refuses both where a key stands.
func TestHidden(t *testing.T) {
	private := PrivateKey(hexKey(t, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
	preshared := PresharedKey(private)
	pair, err := NewKeyPair(private)
	if err != nil {
		t.Fatal(err)
	}
	type exported struct {
		Private    PrivateKey
		Preshared  PresharedKey
		Pointer    *PrivateKey
		Interface  any
		List       []PresharedKey
		ByName     map[string]PrivateKey
		KeyedBy    map[PrivateKey]int
		Pair       *KeyPair
		Expanded   KeyPair
		DoublyHeld **PrivateKey
	}
	pointer := &private
	values := map[string]any{
		"private": private, "*private": &private, "preshared": preshared, "*preshared": &preshared, "pair": *pair, "*pair": pair,
		"slice": []PrivateKey{private}, "array": [1]PresharedKey{preshared}, "map": map[string]PrivateKey{"k": private},
		"key of a map": map[PresharedKey]bool{preshared: true},
		"struct": exported{
			private, preshared, &private, private, []PresharedKey{preshared}, map[string]PrivateKey{"a": private},
			map[PrivateKey]int{private: 1}, pair, *pair, &pointer,
		},
		"error": fmt.Errorf("failed with %v and %x", private, preshared),
	}
	check := func(name, how, out string) {
		t.Helper()
		for spelling, secret := range spellings(private) {
			if strings.Contains(strings.ToLower(out), strings.ToLower(secret)) {
				t.Errorf("%s, %s: the key, %s, is in %q", name, how, spelling, out)
			}
		}
	}
	for name, v := range values {
		for _, verb := range []string{"v", "+v", "#v", "s", "x", "X", "d", "q", "o", "b", "c", "U", "t", "e", "T", "# x", "+q", "#x", "200s", "-5.3v", "08d"} {
			check(name, "%"+verb, fmt.Sprintf("%"+verb, v))
		}
		check(name, "Sprint", fmt.Sprint(v))
		check(name, "Sprintln", fmt.Sprintln(v))
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "k", v, slog.Any("g", v), slog.Group("h", "i", v))
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "k", v, slog.Any("g", v), slog.Group("h", "i", v))
		check(name, "slog", log.String())
		text, _ := json.Marshal(v) // a type json refuses prints nothing
		check(name, "json", string(text))
		if m, ok := v.(encoding.TextMarshaler); ok {
			text, err := m.MarshalText()
			if string(text) != "(hidden)" || err != nil {
				t.Errorf("%s: MarshalText gives %q, %v", name, text, err)
			}
		}
	}
	for _, v := range []any{private, preshared, &private, &preshared, pair} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			if got := fmt.Sprintf(verb, v); got != "(hidden)" {
				t.Errorf("%T with %s: %q", v, verb, got)
			}
		}
		if text, err := json.Marshal(v); string(text) != `"(hidden)"` || err != nil {
			t.Errorf("%T as JSON: %s, %v", v, text, err)
		}
	}
}

// spellings are the first bytes of a key the way printers write them: enough to recognise, too much to be there by chance.
func spellings(k [KeySize]byte) map[string]string {
	head := k[:4]
	return map[string]string{
		"hex":                hex.EncodeToString(head),
		"hex with spaces":    fmt.Sprintf("% x", head),
		"hex with 0x":        fmt.Sprintf("%# x", head),
		"decimal":            strings.Trim(fmt.Sprintf("%d", head), "[]"),
		"decimal, commas":    strings.ReplaceAll(strings.Trim(fmt.Sprintf("%d", head), "[]"), " ", ","),
		"Go":                 strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", head), "[]byte{"), "}"),
		"octal":              strings.Trim(fmt.Sprintf("%o", head), "[]"),
		"binary":             strings.Trim(fmt.Sprintf("%b", head), "[]"),
		"base64":             base64.StdEncoding.EncodeToString(k[:6]),
		"raw":                string(k[:4]),
		"raw, quoted":        strings.Trim(fmt.Sprintf("%q", k[:6]), `"`),
		"code points":        strings.Trim(fmt.Sprintf("%U", head), "[]"),
		"octal zero-padded":  strings.Trim(fmt.Sprintf("%08d", head), "[]"),
		"characters, spaced": strings.Trim(fmt.Sprintf("%c", head), "[]"),
	}
}

// FuzzParseKey checks that what parses is exactly what printing gives, so that no two texts are one key.
func FuzzParseKey(f *testing.F) {
	f.Add("AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dw=")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=")
	f.Add(strings.Repeat("0a", KeySize))
	f.Add(strings.Repeat("0A", KeySize))
	f.Add("\n\n\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParsePrivateKey(s); err == nil && k.Base64() != s {
			t.Errorf("%q parses as %q", s, k.Base64())
		} else if err != nil && !errors.Is(err, ErrKeySyntax) {
			t.Error(err)
		}
		if k, err := ParsePublicKeyHex(s); err == nil && k.Hex() != strings.ToLower(s) {
			t.Errorf("%q parses as %q", s, k.Hex())
		}
		var k PublicKey
		errText, errParse := k.UnmarshalText([]byte(s)), second(ParsePresharedKey(s))
		if (errText == nil) != (errParse == nil) {
			t.Errorf("%q: parsers disagree: %v, %v", s, errText, errParse)
		}
	})
}

func BenchmarkDH(b *testing.B) {
	k, _ := GeneratePrivateKey()
	pair, _ := NewKeyPair(k)
	other, _ := GeneratePrivateKey()
	public := other.Public()
	for b.Loop() {
		_, _ = pair.DH(public)
	}
}
