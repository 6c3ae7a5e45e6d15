// Package enrolment derives, from the secret of an invitation, the keys that its two ends use once: the invited end's static key
// and a preshared key. It knows nothing of invitations but the secret and whom it is for.
package enrolment
