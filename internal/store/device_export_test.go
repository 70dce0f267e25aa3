package store

// PutProvisioned opens putProvisioned to the tests of the package.
var PutProvisioned = putProvisioned
