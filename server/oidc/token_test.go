package oidc

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"culvert/server/oidc/oidctest"
)

// Known answers: the ES256 and RS256 examples of RFC 7515, appendices A.3 and A.2.
func TestSignatureVectors(t *testing.T) {
	const payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	for _, v := range []struct{ algorithm, header, signature, key string }{
		{"ES256", "eyJhbGciOiJFUzI1NiJ9", "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
			`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`},
		{"RS256", "eyJhbGciOiJSUzI1NiJ9", "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
			`{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`},
	} {
		set, ok := parseKeys([]byte(`{"keys":[` + v.key + `]}`))
		if !ok || len(set) != 1 {
			t.Fatalf("%s: the key is not taken", v.algorithm)
		}
		signature, ok := bytesOf(v.signature)
		if !ok {
			t.Fatal("the vector is mistyped")
		}
		signed := []byte(v.header + "." + payload)
		if !set.verify(v.algorithm, "", signed, signature) {
			t.Errorf("%s: the signature is refused", v.algorithm)
		}
		for i := range signature {
			signature[i] ^= 1
			if set.verify(v.algorithm, "", signed, signature) {
				t.Fatalf("%s: a signature with bit %d changed is taken", v.algorithm, 8*i)
			}
			signature[i] ^= 1
		}
		if set.verify(v.algorithm, "other", signed, signature) || set.verify("HS256", "", signed, signature) || set.verify(v.algorithm, "", signed[1:], signature) {
			t.Errorf("%s: a signature of something else is taken", v.algorithm)
		}
	}
}

var now = time.Unix(1_800_000_000, 0)

func newProvider(t testing.TB) (*oidctest.Provider, keySet) {
	p, err := oidctest.New("https://id.example.net", "culvert", func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	keyOf := func(m map[string]any) key {
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		k, ok := parseKey(raw)
		if !ok {
			t.Fatalf("%s is not taken", raw)
		}
		return k
	}
	return p, keySet{keyOf(p.RSAKey()), keyOf(p.ECKey())}
}

func claims(change map[string]any) map[string]any {
	c := map[string]any{"iss": "https://id.example.net", "aud": "culvert", "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(), "nonce": "n", "sub": "1"}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

type m = map[string]any

func TestToken(t *testing.T) {
	p, keys := newProvider(t)
	long := strings.Repeat("x", maxText+1)
	for name, c := range map[string]struct {
		header, claims m
		strict         bool
		ok             bool
	}{
		"as it is":                {nil, nil, false, true},
		"ES256":                   {m{"alg": "ES256", "kid": "ES256"}, nil, false, true},
		"no key id":               {m{"kid": nil}, nil, false, true},
		"another key's id":        {m{"kid": "ES256"}, nil, false, false},
		"a key id that is none":   {m{"kid": 7}, nil, false, false},
		"no algorithm":            {m{"alg": nil}, nil, false, false},
		"none":                    {m{"alg": "none"}, nil, false, false},
		"HS256":                   {m{"alg": "HS256"}, nil, false, false},
		"critical extensions":     {m{"crit": []string{"b64"}, "b64": false}, nil, false, false},
		"another issuer":          {nil, m{"iss": "https://id.example.net/"}, false, false},
		"no issuer":               {nil, m{"iss": nil, "ISS": "https://id.example.net"}, false, false},
		"another audience":        {nil, m{"aud": "other"}, false, false},
		"no audience":             {nil, m{"aud": nil}, false, false},
		"one of several":          {nil, m{"aud": []string{"other", "culvert"}}, false, false},
		"several, for this":       {nil, m{"aud": []string{"other", "culvert"}, "azp": "culvert"}, false, true},
		"for another party":       {nil, m{"azp": "other"}, false, false},
		"an audience of numbers":  {nil, m{"aud": []any{"culvert", 1}}, false, false},
		"expired":                 {nil, m{"exp": now.Add(-Leeway).Unix()}, false, false},
		"expired a moment ago":    {nil, m{"exp": now.Add(-Leeway + time.Second).Unix()}, false, true},
		"never expires":           {nil, m{"exp": nil}, false, false},
		"expires at a text":       {nil, m{"exp": "1900000000"}, false, false},
		"expires at infinity":     {nil, m{"exp": 1e300}, false, false},
		"of the future":           {nil, m{"iat": now.Add(2 * Leeway).Unix()}, false, false},
		"not issued":              {nil, m{"iat": nil}, false, false},
		"not yet":                 {nil, m{"nbf": now.Add(2 * Leeway).Unix()}, false, false},
		"another nonce":           {nil, m{"nonce": "m"}, false, false},
		"a nonce that is none":    {nil, m{"nonce": 1}, false, false},
		"no nonce":                {nil, m{"nonce": nil}, false, true},
		"no nonce, demanded":      {nil, m{"nonce": nil}, true, false},
		"its nonce, demanded":     {nil, nil, true, true},
		"nobody":                  {nil, m{"sub": nil}, false, false},
		"a long subject":          {nil, m{"sub": long}, false, false},
		"a subject for terminals": {nil, m{"sub": "\x1b[2J"}, false, false},
	} {
		header := m{"alg": "RS256", "kid": "RS256"}
		maps.Copy(header, c.header)
		maps.DeleteFunc(header, func(_ string, v any) bool { return v == nil })
		config := Config{Issuer: "https://id.example.net", ClientID: "culvert", RequireNonce: c.strict, GroupsClaim: "groups"}
		who, err := config.verify(p.Sign(header, claims(c.claims)), keys, "n", now)
		if (err == nil) != c.ok || (who != nil) != c.ok {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	config := Config{Issuer: "https://id.example.net", ClientID: "culvert", GroupsClaim: "roles"}
	for name, c := range map[string]struct {
		claims m
		email  string
		groups int
	}{
		"verified":            {m{"email": "a@b", "email_verified": true}, "a@b", 0},
		"verified, as a text": {m{"email": "a@b", "email_verified": "true"}, "a@b", 0},
		"not verified":        {m{"email": "a@b", "email_verified": false}, "", 0},
		"not said":            {m{"email": "a@b"}, "", 0},
		"a number":            {m{"email": "a@b", "email_verified": 1}, "", 0},
		"groups":              {m{"groups": []string{"no"}, "roles": []string{"x", "y"}}, "", 2},
		"one group":           {m{"roles": "x"}, "", 1},
		"groups, one long":    {m{"roles": []string{"x", long}}, "", 0},
	} {
		who, err := config.verify(p.Sign(m{"alg": "ES256", "kid": "ES256"}, claims(c.claims)), keys, "n", now)
		if err != nil || who.Email != c.email || len(who.Groups) != c.groups {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	// Not as it was signed.
	token := p.Sign(m{"alg": "ES256", "kid": "ES256"}, claims(nil))
	parts := strings.Split(token, ".")
	for name, text := range map[string]string{
		"no signature": parts[0] + "." + parts[1] + ".", "two parts": parts[0] + "." + parts[1], "a fourth part": token + ".x", "padded": token + "==",
		"empty": "", "other claims": parts[0] + "." + strings.Split(p.Sign(m{"alg": "x"}, claims(m{"sub": "2"})), ".")[1] + "." + parts[2],
		"too long": token + strings.Repeat("A", maxToken),
	} {
		if who, err := config.verify(text, keys, "n", now); err == nil {
			t.Errorf("%s: %+v", name, who)
		}
	}
}

func TestKeys(t *testing.T) {
	p, _ := newProvider(t)
	with := func(of m, change m) string {
		maps.Copy(of, change)
		maps.DeleteFunc(of, func(_ string, v any) bool { return v == nil })
		b, err := json.Marshal(m{"keys": []any{of}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		set  string
		keys int // -1: refused as a whole
	}{
		"rsa":                  {with(p.RSAKey(), nil), 1},
		"ec":                   {with(p.ECKey(), nil), 1},
		"for encryption":       {with(p.RSAKey(), m{"use": "enc"}), 0},
		"for any use":          {with(p.RSAKey(), m{"use": nil, "alg": nil}), 1},
		"another algorithm":    {with(p.RSAKey(), m{"alg": "RS512"}), 0},
		"a weak modulus":       {with(p.RSAKey(), m{"n": strings.Repeat("_", 170)}), 0},
		"a vast modulus":       {with(p.RSAKey(), m{"n": strings.Repeat("_", 4000)}), 0},
		"exponent 1":           {with(p.RSAKey(), m{"e": "AQ"}), 0},
		"a vast exponent":      {with(p.RSAKey(), m{"e": "_____w"}), 0},
		"not on the curve":     {with(p.ECKey(), m{"x": p.ECKey()["y"]}), 0},
		"another curve":        {with(p.ECKey(), m{"crv": "P-384"}), 0},
		"a short coordinate":   {with(p.ECKey(), m{"x": "AAAA"}), 0},
		"a secret":             {`{"keys":[{"kty":"oct","k":"AAAA"}]}`, 0},
		"not a list":           {`{"keys":{}}`, -1},
		"nothing":              {`{}`, -1},
		"not an object":        {`[]`, -1},
		"numbers":              {`{"keys":[1,null,"x"]}`, 0},
		"more than are looked": {`{"keys":[` + strings.Repeat("1,", MaxKeys) + `1]}`, -1},
	} {
		set, ok := parseKeys([]byte(c.set))
		if ok != (c.keys >= 0) || ok && len(set) != c.keys {
			t.Errorf("%s: %d keys, %v", name, len(set), ok)
		}
	}
}

func FuzzToken(f *testing.F) {
	p, keys := newProvider(f)
	f.Add(p.Sign(m{"alg": "RS256", "kid": "RS256"}, claims(nil)))
	f.Add(`{"keys":[]}`)
	f.Add("e30.e30.")
	f.Add(`{"alg":"RS256"}`)
	f.Add(`{"iss":"https://id.example.net","aud":["culvert"],"azp":"culvert","exp":1800000060,"iat":1800000000,"sub":"1"}`)
	config := Config{Issuer: "https://id.example.net", ClientID: "culvert", GroupsClaim: "groups"}
	f.Fuzz(func(t *testing.T, text string) {
		if who, err := config.verify(text, keys, "n", now); err == nil && (who.Subject == "" || !strings.HasPrefix(text, "ey")) {
			t.Errorf("%q is %+v", text, who)
		}
		// The same behind a signature that is right: what the claims and keys may be.
		if who, err := config.verify(p.SignText("ES256", `{"alg":"ES256"}`, text), keys, "n", now); err == nil && (who.Subject == "" || len(who.Subject) > maxText) {
			t.Errorf("claims %q are %+v", text, who)
		}
		parseKeys([]byte(text))
	})
}
