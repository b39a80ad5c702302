"""What is read off machine code."""

from __future__ import annotations

from tests.kernels.machine_code import find_stale_pairs, find_unwritten


def test_registers_that_are_read_before_they_are_written_are_found() -> None:
    whole = """
        /*0010*/  R2UR UR38, R121 ;
        /*0020*/  UMOV UR39, URZ ;
        /*0030*/  UIADD3.64 UR40, UR38, 0x2, URZ ;
        /*0040*/  HGMMA.64x16x16.F32 R64, gdesc[UR40], R64 ;
    """
    assert find_unwritten(whole) == []
    without_first = whole.replace("R2UR UR38, R121", "UIADD3 UR38, UP0, UR38, 0x2, URZ")
    assert find_unwritten(without_first) == ["UR38"]
    assert find_unwritten("@!PT HGMMA.64x16x16.F32 R64, gdesc[UR8], R64 ;") == ["UR8"]


def test_a_product_with_rows_in_registers_reads_half_of_its_descriptors() -> None:
    code = """
        UMOV UR58, UR4 ;
        HGMMA.64x16x16.F32 R40, R56, gdesc[UR56].tnspB, R40 ;
    """
    assert find_unwritten("UMOV UR4, URZ ;" + chr(10) + code) == []


def test_pairs_that_are_turned_before_they_are_there_are_found() -> None:
    code = """
    LDS.64 R4, [R1] ;
    F2FP.F16.E4M3.UNPACK_B R8, R5.H1 ;
    F2FP.SATFINITE.E4M3.F32.PACK_AB_MERGE_C R6, R2, R3, RZ ;
    F2FP.F16.E4M3.UNPACK_B R9, R6 ;
    LDL.LU R7, [R1+0x40] ;
    F2FP.F16.E4M3.UNPACK_B R10, R7 ;
    F2FP.F16.E4M3.UNPACK_B R11, R12 ;
    """
    assert find_stale_pairs(code) == ["R7", "R12"]
