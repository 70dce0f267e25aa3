package main

// measure is one line of the report: ours against a reference, in the same run on the same machine.
type measure struct {
	name      string
	unit      string
	ours      probe
	reference probe // nil where the goal is absolute
	goal      goal
}

// probe names where a figure comes from. Exactly one of its forms is filled.
type probe interface{ String() string }

// benchmark is a Go benchmark: the median over the runs of one of its metrics ("ns/op", or one it reports itself), times scale.
type benchmark struct {
	in                string // folder of a module of its own; empty: ours
	pkg, name, metric string
	scale             float64 // 0 is 1
	perSecond         bool    // turn ns/op into 1/s
}

// fileSize is a program's size in MB.
type fileSize struct{ path string }

// demoTime is how long the demo took from start to exit, in seconds.
type demoTime struct{}

// demoRSS is the largest resident set any agent process had while the demo ran, in MB.
type demoRSS struct{}

// atSize is a figure of internal/bench/atsize, in ms: what people wait for with very many devices.
type atSize struct{ figure string }

// startTime is how long a program takes to start and say how it is used, in ms.
type startTime struct{ path string }

func (b benchmark) String() string { return "Benchmark" + b.name + " in " + b.pkg }
func (f fileSize) String() string  { return "size of " + f.path }
func (demoTime) String() string    { return "bin/hallmark demo --once --json --devices 20" }
func (a atSize) String() string    { return "AtSize" + a.figure + " of internal/bench/atsize" }
func (s startTime) String() string { return s.path + " --help" }
func (demoRSS) String() string     { return "VmHWM of each bin/hallmark-agent during the demo" }

// goal is a bound on our figure or on the ratio ours/reference.
type goal struct {
	onRatio bool
	atLeast bool // else at most
	bound   float64
}

const ms = 1e-6 // of ns

// peers are other systems with the entries that ours is measured with. Tessera gives an entry its place when it is durable, and so do we in
// BenchmarkPlaced. rekor-tiles is asked over HTTP, one entry a request: it verifies a signature and answers when a checkpoint has the entry.
// step-ca is a process of its own beside its clients, as it is run; our server and its devices share one. Both answer when the certificate is
// durable, and both have requests and keys made before the clock starts; our devices show a certificate, those of step-ca a token.
var peers = []measure{
	{
		name: "log append until it has its place; Tessera on POSIX", unit: "facts/s",
		ours:      benchmark{pkg: "./internal/store", name: "Placed", metric: "facts/s"},
		reference: benchmark{in: "internal/bench/peers", pkg: ".", name: "TesseraPOSIX", metric: "facts/s"},
	},
	{
		name: "log append until it is under a witnessed checkpoint; rekor-tiles on POSIX, without witnesses", unit: "facts/s",
		ours:      benchmark{pkg: "./internal/store", name: "Covered", metric: "facts/s"},
		reference: benchmark{in: "internal/bench/peers", pkg: ".", name: "RekorTiles", metric: "facts/s"},
	},
	{
		name: "EST enrolments, durable, 8 at once; step-ca 0.30.2 over badger, 8 kept connections", unit: "1/s",
		ours:      benchmark{pkg: "./internal/server", name: "EnrolInFlight/8", metric: "ns/op", perSecond: true},
		reference: benchmark{in: "internal/bench/peers/stepca", pkg: ".", name: "StepCA/8", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 2},
	},
	{
		name: "EST enrolments, durable, 64 at once; step-ca 0.30.2 over badger, 64 kept connections", unit: "1/s",
		ours:      benchmark{pkg: "./internal/server", name: "EnrolInFlight/64", metric: "ns/op", perSecond: true},
		reference: benchmark{in: "internal/bench/peers/stepca", pkg: ".", name: "StepCA/64", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 2},
	},
	{
		name: "poll of hawkBit's protocol without news; hawkBit 0.3.0M7 over H2 in memory, its default", unit: "1/s",
		ours:      benchmark{pkg: "./internal/server", name: "PollDDI/ours", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/server", name: "PollHawkBit/h2", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 1},
	},
	{
		name: "poll of hawkBit's protocol without news; hawkBit 0.3.0M7 over PostgreSQL", unit: "1/s",
		ours:      benchmark{pkg: "./internal/server", name: "PollDDI/ours", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/server", name: "PollHawkBit/postgres", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 1},
	},
}

// measures is the whole list. A measure is added here, with its goal, before the code it measures is made fast.
var measures = []measure{
	{
		name: "ledger append, durable", unit: "facts/s",
		ours:      benchmark{pkg: "./internal/store", name: "Append", metric: "facts/s"},
		reference: benchmark{pkg: "./internal/store", name: "ReferenceInsert", metric: "facts/s"},
		goal:      goal{atLeast: true, bound: 50_000},
	},
	{
		name: "ledger append on PostgreSQL, many to a commit; the reference: one transaction each, 32 connections", unit: "facts/s",
		ours:      benchmark{pkg: "./internal/store", name: "AppendPostgres", metric: "facts/s"},
		reference: benchmark{pkg: "./internal/store", name: "ReferenceInsertPostgres", metric: "facts/s"},
		goal:      goal{atLeast: true, bound: 30_000},
	},
	{
		name: "ledger append on PostgreSQL, 32 nodes, one transaction each", unit: "facts/s",
		ours:      benchmark{pkg: "./internal/store", name: "AppendPostgresAlone", metric: "facts/s"},
		reference: benchmark{pkg: "./internal/store", name: "ReferenceInsertPostgres", metric: "facts/s"},
		goal:      goal{atLeast: true, bound: 8000},
	},
	{name: "fact placed, 500 come in a second, p99", unit: "ms", ours: benchmark{pkg: "./internal/store", name: "Sequenced", metric: "p99-ms"}, goal: goal{bound: 100}},
	{name: "fact under a checkpoint of two witnesses, 500 come in a second, p99", unit: "ms", ours: benchmark{pkg: "./internal/store", name: "WitnessedOpen", metric: "p99-ms"}, goal: goal{bound: 2000}},
	{name: "disk for a fact of 300 bytes, database", unit: "B", ours: benchmark{pkg: "./internal/store", name: "Disk", metric: "db-B"}, goal: goal{bound: 600}},
	{name: "disk for a fact of 300 bytes, exported log", unit: "B", ours: benchmark{pkg: "./internal/store", name: "Disk", metric: "log-B"}},
	{name: "fact placed on PostgreSQL, 500 come in a second, p99", unit: "ms", ours: benchmark{pkg: "./internal/store", name: "SequencedPostgres", metric: "p99-ms"}, goal: goal{bound: 100}},
	{
		name: "inclusion proof from the store", unit: "ms",
		ours:      benchmark{pkg: "./internal/store", name: "Proof", metric: "ns/op", scale: ms},
		reference: benchmark{pkg: "./internal/bench", name: "ReferenceProof", metric: "ns/op", scale: ms},
		goal:      goal{bound: 0.2},
	},
	{
		name: "proof verified on a device, 1,000,000 entries, 2 witnesses", unit: "ms",
		ours: benchmark{pkg: "./wire", name: "DeviceVerify", metric: "ns/op", scale: ms}, goal: goal{bound: 0.5},
	},
	{name: "proof verified on a device, heap", unit: "B", ours: benchmark{pkg: "./wire", name: "DeviceVerify", metric: "B/op"}, goal: goal{bound: 4096}},
	{name: "proof on the wire, 1,000,000 entries, 2 witnesses", unit: "B", ours: benchmark{pkg: "./wire", name: "DeviceVerify", metric: "wire-B"}, goal: goal{bound: 1200}},
	{
		name: "start of a device: a release of 64 MB verified", unit: "MB/s",
		ours:      benchmark{pkg: "./agent/boot", name: "Verify", metric: "MB/s"},
		reference: benchmark{pkg: "./agent/boot", name: "ReferenceSHA256", metric: "MB/s"},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.8},
	},
	{
		name: "update of 64 MB brought into a device's flash and verified; erasing, writing and hashing as much", unit: "ms",
		ours:      benchmark{pkg: "./agent/boot", name: "Update", metric: "ns/op", scale: ms},
		reference: benchmark{pkg: "./agent/boot", name: "ReferenceWriteAndHash", metric: "ns/op", scale: ms},
		goal:      goal{onRatio: true, bound: 1.3},
	},
	{name: "update of 64 MB, all that is allocated", unit: "B", ours: benchmark{pkg: "./agent/boot", name: "Update", metric: "B/op"}, goal: goal{bound: 1 << 20}},
	{name: "delivery judged on a device", unit: "ms", ours: benchmark{pkg: "./agent/gate", name: "Judge/quarantine", metric: "ns/op", scale: ms}},
	{
		name: "EST enrolment, durable, over mTLS", unit: "1/s",
		ours:      benchmark{pkg: "./internal/server", name: "Enrol", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/bench", name: "ReferenceIssue", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.4},
	},
	{
		name: "certificates over EST's line, and nothing that makes them enrolments: the most that there could be", unit: "1/s",
		ours:      benchmark{pkg: "./internal/server", name: "EnrolCeiling", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/bench", name: "ReferenceIssue", metric: "ns/op", perSecond: true},
	},
	{
		name: "connections of devices, full handshake", unit: "1/s",
		ours:      benchmark{pkg: "./internal/est", name: "Connect/ours", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/est", name: "Connect/bare", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.85},
	},
	{
		name: "10,000 of 1,000,000 devices revoked, until all lists are fresh; the reference signs lists alone", unit: "s",
		ours:      benchmark{pkg: "./internal/store", name: "RevokeMany", metric: "s/10k"},
		reference: benchmark{pkg: "./internal/store", name: "ReferenceLists", metric: "s/10k"},
		goal:      goal{bound: 10},
	},
	{
		name: "10,000 of 1,000,000 devices revoked on PostgreSQL, until all lists are fresh; the reference signs lists alone", unit: "s",
		ours:      benchmark{pkg: "./internal/store", name: "RevokeManyPostgres", metric: "s/10k"},
		reference: benchmark{pkg: "./internal/store", name: "ReferenceLists", metric: "s/10k"},
		goal:      goal{bound: 10},
	},
	{
		name: "devices made at a station, keys in SoftHSM, pieces that take no time to write; the reference: two signatures each", unit: "1/s",
		ours:      benchmark{pkg: "./internal/factorytest", name: "Station", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/factorytest", name: "ReferenceModule", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.4},
	},
	{
		name: "a device's cryptography at the station, and nothing else of it: the most that there could be", unit: "1/s",
		ours:      benchmark{pkg: "./internal/factorytest", name: "StationCeiling", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/factorytest", name: "ReferenceModule", metric: "ns/op", perSecond: true},
	},
	{name: "run of 5,000 virtual devices, keys in files, scaled to 100,000", unit: "s", ours: benchmark{pkg: "./internal/factorytest", name: "LongRun/5000", metric: "s/100k"}},
	{name: "run of 5,000 virtual devices, by how much the heap grew", unit: "MB", ours: benchmark{pkg: "./internal/factorytest", name: "LongRun/5000", metric: "grown-MB"}, goal: goal{bound: 1}},
	{name: "records of 100,000 devices imported and reconciled, SQLite, as a share of them shows", unit: "s", ours: benchmark{pkg: "./internal/factorytest", name: "Reconcile", metric: "s/100k"}, goal: goal{bound: 60}},
	{name: "check-in without news that is looked up in the database", unit: "1/s", ours: benchmark{pkg: "./internal/store", name: "CheckinNoChange", metric: "ns/op", perSecond: true}},
	{
		name: "poll of devices without news, mTLS and keep-alive; the reference: a bare net/http handler", unit: "1/s",
		ours:      benchmark{pkg: "./internal/server", name: "Poll/ours", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/server", name: "Poll/bare", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.8},
	},
	{
		name: "download of 64 MB, mTLS, one device; the reference: http.ServeContent", unit: "MB/s",
		ours:      benchmark{pkg: "./internal/server", name: "Download/mtls/1/ours", metric: "MB/s"},
		reference: benchmark{pkg: "./internal/server", name: "Download/mtls/1/bare", metric: "MB/s"},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.9},
	},
	{
		name: "download of 64 MB, mTLS, 8 at once; the reference: http.ServeContent", unit: "MB/s",
		ours:      benchmark{pkg: "./internal/server", name: "Download/mtls/8/ours", metric: "MB/s"},
		reference: benchmark{pkg: "./internal/server", name: "Download/mtls/8/bare", metric: "MB/s"},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.9},
	},
	{
		name: "download of 64 MB, plain HTTP on loopback, one device; the reference: http.ServeContent", unit: "MB/s",
		ours:      benchmark{pkg: "./internal/server", name: "Download/plain/1/ours", metric: "MB/s"},
		reference: benchmark{pkg: "./internal/server", name: "Download/plain/1/bare", metric: "MB/s"},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.9},
	},
	{
		name: "download of 64 MB, plain HTTP on loopback, 8 at once; the reference: http.ServeContent", unit: "MB/s",
		ours:      benchmark{pkg: "./internal/server", name: "Download/plain/8/ours", metric: "MB/s"},
		reference: benchmark{pkg: "./internal/server", name: "Download/plain/8/bare", metric: "MB/s"},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.9},
	},
	{
		name: "poll of hawkBit's clients without news, token, TLS and keep-alive; the reference: a bare net/http handler", unit: "1/s",
		ours:      benchmark{pkg: "./internal/server", name: "PollDDI/ours", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/server", name: "PollDDI/bare", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.8},
	},
	{
		name: "a directive on demand, its place among 100,000 devices, processor time without the line", unit: "ms",
		ours: benchmark{pkg: "./internal/server", name: "Directive/service", metric: "cpu-ms/op"}, goal: goal{bound: 0.3},
	},
	{
		name: "1,000,000 devices selected and put into waves, dry run", unit: "s",
		ours: benchmark{pkg: "./internal/server", name: "Plan/dry", metric: "ns/op", scale: 1e-9}, goal: goal{bound: 5},
	},
	{
		name: "1,000,000 devices selected and put into waves, start", unit: "s",
		ours: benchmark{pkg: "./internal/server", name: "Plan/start", metric: "ns/op", scale: 1e-9}, goal: goal{bound: 5},
	},
	{
		name: "from the start of a rollout to 100,000 devices until all are told, and the first 1,000 that ask were answered", unit: "s",
		ours: benchmark{pkg: "./internal/server", name: "FirstWave", metric: "s/100k"}, goal: goal{bound: 10},
	},
	{name: "agent, stripped binary", unit: "MB", ours: fileSize{"bin/hallmark-agent"}, goal: goal{bound: 20}},
	{name: "agent, resident", unit: "MB", ours: demoRSS{}, goal: goal{bound: 20}},
	{name: "console page, many devices, slowest p95", unit: "ms", ours: atSize{"Page"}, goal: goal{bound: 50}},
	{name: "list of the API, many devices, slowest p95", unit: "ms", ours: atSize{"List"}, goal: goal{bound: 50}},
	{name: "device list query, many devices, slowest", unit: "ms", ours: atSize{"Query"}, goal: goal{bound: 5}},
	{name: "which of many devices have a component that is everywhere", unit: "ms", ours: atSize{"Component"}, goal: goal{bound: 1000}},
	{name: "which of many devices may have a part of a lot that is everywhere, and a page of them", unit: "ms", ours: atSize{"Lot"}, goal: goal{bound: 1000}},
	{name: "overview, many devices, first paint in Chromium", unit: "ms", ours: atSize{"Paint"}, goal: goal{bound: 1000}},
	{
		name: "API GET", unit: "1/s",
		ours:      benchmark{pkg: "./internal/httpapi", name: "Get/ours", metric: "ns/op", perSecond: true},
		reference: benchmark{pkg: "./internal/httpapi", name: "Get/bare", metric: "ns/op", perSecond: true},
		goal:      goal{onRatio: true, atLeast: true, bound: 0.7},
	},
	{name: "command line, start", unit: "ms", ours: startTime{"bin/hallmark"}, goal: goal{bound: 50}},
	{name: "demo, 20 devices", unit: "s", ours: demoTime{}, goal: goal{bound: 60}},
}
