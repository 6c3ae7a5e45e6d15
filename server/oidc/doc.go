// Package oidc signs a user in at a provider of OpenID Connect by the device authorization grant (RFC 8628): [Flow] is a state machine
// that names the next HTTP request, takes its answer and does no I/O; what a provider says is believed once its ID token has been verified
// by its keys (RS256 or ES256), and is checked against [Config]. Whatever a provider answers is bounded: MaxAnswer bytes, MaxKeys keys.
package oidc
