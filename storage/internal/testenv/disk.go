package testenv

import "math/rand/v2"

const sectorSize = 512

// Tear returns data after a power cut during the write of p at offset: with all of p, nothing, a prefix, or any of its
// sectors. It grows data as needed.
func Tear(rng *rand.Rand, data, p []byte, offset int64) []byte {
	mode, prefix := rng.IntN(4), rng.IntN(len(p)+1)
	for i := 0; i < len(p); {
		end := min(len(p), i+sectorSize-int((offset+int64(i))%sectorSize))
		if mode == 0 || mode == 2 && end <= prefix || mode == 3 && rng.IntN(2) == 0 {
			data = WriteAt(data, p[i:end], offset+int64(i))
		}
		i = end
	}
	return data
}

// WriteAt returns data with p at offset. It grows data as needed.
func WriteAt(data, p []byte, offset int64) []byte {
	if need := int(offset) + len(p); need > len(data) {
		data = append(data, make([]byte, need-len(data))...)
	}
	copy(data[offset:], p)
	return data
}
