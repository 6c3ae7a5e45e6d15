package server

import "time"

// Bounds. What is beyond them is refused.
const (
	MaxClients     = 16384    // clients of one tunnel
	MaxInvitations = 1024     // open invitations of one tunnel
	MaxLeases      = 32768    // addresses remembered, those of former clients included
	MaxPool        = 16       // prefixes of a pool
	MaxPins        = 16       // addresses pinned to one client
	MaxNetworks    = 256      // networks behind one client
	MaxRoutes      = 512      // routes pushed to one client
	MaxAddresses   = 16       // addresses pushed to one client
	MaxServers     = 16       // name servers pushed
	MaxDomains     = 16       // domains pushed, and search domains
	MaxDomain      = 253      // bytes of one, without a dot behind it
	MaxName        = 64       // bytes of a client's or group's name
	MaxReason      = 256      // bytes of the reason for a refusal
	maxWhy         = 512      // bytes of it in the audit log, which a list of all groups would exceed
	MaxEndpoints   = 8        // endpoints in a link, or of another server
	MaxEndpoint    = 255      // bytes of one
	MaxOthers      = 7        // servers that a client is told of besides
	MaxLink        = 4096     // bytes of a link
	MaxDocument    = 15 << 10 // bytes of a [Document]

	MaxEnrolRequest = 256 // bytes of an [EnrolRequest]

	MaxCode         = 16      // bytes of a code that is typed
	MaxUserCode     = 64      // bytes of a code that a provider gives
	MaxURL          = 1024    // bytes of the page where it is entered
	MaxSignInState  = 4 << 10 // bytes of a [SignInState]
	MaxSignInAnswer = 64      // bytes of a [SignInAnswer]
)

const (
	// Linger is how long the end of an invitation that was used is still answered: its answer may have been lost, and the
	// client that has it asks again.
	Linger = time.Minute
	// MaxExpiry is the longest an invitation may be good for.
	MaxExpiry = 366 * 24 * time.Hour
	// MinSignIn and MaxSignIn are how short and how long a sign-in may last.
	MinSignIn = time.Minute
	MaxSignIn = 366 * 24 * time.Hour
	// seenEvery is how often the store is told that a client is still there.
	seenEvery = time.Hour
	// noteEvery is how often the audit log may say of one client that it is somewhere else.
	noteEvery = 5 * time.Second
)
