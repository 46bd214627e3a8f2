// Checks two checkpoints, a proof of inclusion and a proof of consistency with implementations that aren't ours: Go's
// module database (x/mod/sumdb) and Certificate Transparency's Merkle verifier. Input: JSON on stdin. Exit 0: all hold.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/certificate-transparency/go/merkletree"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type input struct {
	VerifierKey string
	Old         string
	Checkpoint  string
	Leaf        []byte
	Proof       string
	Consistency [][]byte
}

func fail(what string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

func tree(message string, verifiers note.Verifiers, origin string) tlog.Tree {
	signed, err := note.Open([]byte(message), verifiers)
	fail("note", err)
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[0] != origin {
		fail("checkpoint", fmt.Errorf("not of %s: %q", origin, signed.Text))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	fail("size", err)
	root, err := tlog.ParseHash(lines[2])
	fail("root", err)
	return tlog.Tree{N: size, Hash: root}
}

func hashes(raw [][]byte) []tlog.Hash {
	var list []tlog.Hash
	for _, bytes := range raw {
		var hash tlog.Hash
		copy(hash[:], bytes)
		list = append(list, hash)
	}
	return list
}

func main() {
	var in input
	decoder := json.NewDecoder(os.Stdin)
	fail("input", decoder.Decode(&in))
	verifier, err := note.NewVerifier(in.VerifierKey)
	fail("key", err)
	verifiers := note.VerifierList(verifier)
	old := tree(in.Old, verifiers, verifier.Name())

	parts := strings.SplitN(in.Proof, "\n\n", 2)
	lines := strings.Split(parts[0], "\n")
	if parts[1] != in.Checkpoint || lines[0] != "c2sp.org/tlog-proof@v1" {
		fail("proof", fmt.Errorf("another checkpoint or header"))
	}
	grown := tree(parts[1], verifiers, verifier.Name())
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	fail("index", err)
	var path [][]byte
	for _, line := range lines[2:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		fail("hash", err)
		path = append(path, hash)
	}

	fail("tlog inclusion", tlog.CheckRecord(hashes(path), grown.N, grown.Hash, index, tlog.RecordHash(in.Leaf)))
	fail("tlog consistency", tlog.CheckTree(hashes(in.Consistency), grown.N, grown.Hash, old.N, old.Hash))

	ct := merkletree.NewMerkleVerifier(func(data []byte) []byte {
		sum := sha256.Sum256(data)
		return sum[:]
	})
	// it counts leaves from 1
	fail("ct inclusion", ct.VerifyInclusionProof(index+1, grown.N, path, grown.Hash[:], in.Leaf))
	fail("ct consistency", ct.VerifyConsistencyProof(old.N, grown.N, old.Hash[:], grown.Hash[:], in.Consistency))
	if bytes.Equal(old.Hash[:], grown.Hash[:]) && old.N != grown.N {
		fail("roots", fmt.Errorf("equal"))
	}
	fmt.Println("ok")
}
